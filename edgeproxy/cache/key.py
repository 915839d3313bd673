"""Cache keys: which requests are for the same stored response. Pure; knows nothing of stores."""

from collections.abc import Mapping, Sequence


def primary_key(scheme: bytes, host: bytes, target: bytes) -> bytes:
    """Key of a target URI (RFC 9111 §2): scheme, host in lower case with its port, path and query as received.

    GET and HEAD share it. A host holds no `/`, so no two targets give the same key.
    """
    return scheme + b"://" + host + target


def variant_key(primary: bytes, generation: int, vary: Sequence[bytes], names: Mapping[bytes, bytes]) -> bytes:
    """Key of one variant of a resource (RFC 9111 §4.1): the request's values of the fields that Vary names.

    `generation` tells apart the variants before and after an invalidation. An absent field differs from an empty one;
    values can't hold the separators, which are control bytes.
    """
    values = b"\x01".join(names.get(name, b"\x02") for name in vary)
    return b"%b\x00%d\x00%b" % (primary, generation, values)
