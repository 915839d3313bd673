"""Cache keys: which requests are for the same stored response. Pure; knows nothing of stores."""

import re
from collections.abc import Mapping, Sequence

_SPACES = re.compile(rb"[ \t]*,[ \t]*")


def primary_key(scheme: bytes, host: bytes, target: bytes) -> bytes:
    """Key of a target URI (RFC 9111 §2): scheme, host in lower case with its port, path and query as received.

    GET and HEAD share it. A host holds no `/`, so no two targets give the same key.
    """
    return scheme + b"://" + host + target


def variant(vary: Sequence[bytes], names: Mapping[bytes, bytes]) -> bytes:
    """A request's values of the fields that Vary names (RFC 9111 §4.1), white space around list members left out.

    An absent field differs from an empty one; values can't hold the separators, which are control bytes.
    """
    return b"\x01".join(_SPACES.sub(b",", names[name]) if name in names else b"\x02" for name in vary)
