"""Spans as OTLP protobuf, by concatenation: a message is the bytes of its fields, one after the other.

Why not protobuf's own classes: a batch's spans share nearly all of their attributes, so that most of a span is bytes
that have been made before. The SDK's encoder takes 118 us a span, this one some 10 us (docs/performance.md).
Pure; not for threads: the memory of encoded attributes belongs to one. What it writes is checked against the decoder of
opentelemetry-proto and against the SDK's encoder.

    https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

from edgeproxy.tracing.spans import Event, Kind, Link, Span, Value

SCHEMA_URL = "https://opentelemetry.io/schemas/1.34.0"
"""The version of the semantic conventions that names and attributes are of."""

_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""Bits of a span's flags beside those of its trace: it is known whether its parent is remote, and it is."""
_ERROR = 2
_REMEMBERED = 1024
"""How many values of each attribute are kept encoded."""
_LONGEST_REMEMBERED = 256
_INT64 = 1 << 64

_HEAD = struct.Struct("<BB16sBB8s")
_TIMES = struct.Struct("<BQBQ")
_TIME = struct.Struct("<BQ")
_FLAGS = struct.Struct("<HI")
_FLAGS_TAG = 0x85 | 0x01 << 8
_DOUBLE = struct.Struct("<Bd")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = [_varint(number) for number in range(16384)]
"""The lengths that occur."""
_KINDS = {kind: b"\x30" + _varint(kind) for kind in Kind}


def _sized(tag: bytes, data: bytes) -> bytes:
    """A field with a length: text, bytes or a message."""
    length = len(data)
    return tag + (_VARINTS[length] if length < 16384 else _varint(length)) + data


def _text(value: str) -> bytes:
    """UTF-8. What is no Unicode (half a surrogate pair) is replaced: protobuf takes no other text."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def _any_value(value: Value) -> bytes:
    """An AnyValue's bytes."""
    match value:
        case str():
            return _sized(b"\x0a", _text(value))
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            # Two's complement of 64 bits, as protobuf has it; a number that is too large for that is given as text.
            if not -(_INT64 >> 1) <= value < _INT64 >> 1:
                return _sized(b"\x0a", str(value).encode())
            return b"\x18" + _varint(value % _INT64)
        case float():
            return _DOUBLE.pack(0x21, value)
        case _:
            return _sized(b"\x2a", b"".join(_sized(b"\x0a", _any_value(item)) for item in value))


class _Attribute:
    """One attribute name, with the values that it had lately."""

    __slots__ = ("_name", "_tag", "texts", "values")

    def __init__(self, tag: bytes, name: str) -> None:
        self._tag = tag
        self._name = _sized(b"\x0a", _text(name))
        self.texts: dict[str, bytes] = {}
        self.values: dict[tuple[type, Value], bytes] = {}
        """By type as well: to a dict, 1 and True and 1.0 are one key."""

    def text(self, value: str) -> bytes:
        """The field for a text that is not in `texts`."""
        encoded = self._field(value)
        if len(encoded) < _LONGEST_REMEMBERED:
            if len(self.texts) >= _REMEMBERED:
                self.texts.clear()
            self.texts[value] = encoded
        return encoded

    def value(self, value: Value) -> bytes:
        """The field for anything else."""
        key = (type(value), value)
        encoded = self.values.get(key)
        if encoded is None:
            encoded = self._field(value)
            if isinstance(value, int) and len(self.values) < _REMEMBERED:
                self.values[key] = encoded
        return encoded

    def _field(self, value: Value) -> bytes:
        return _sized(self._tag, self._name + _sized(b"\x12", _any_value(value)))


class Encoder:
    """Encodes spans, and remembers what their attributes came to."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._of_spans: dict[str, _Attribute] = {}
        self._of_events: dict[str, _Attribute] = {}
        self._of_links: dict[str, _Attribute] = {}
        self._names: dict[str, bytes] = {}

    def spans(self, spans: Iterable[Span]) -> bytes:
        """Encode spans as they stand one after the other in a request."""
        return b"".join([_sized(b"\x12", self._span(span)) for span in spans])

    def _span(self, span: Span) -> bytes:
        name, kind, trace_id, span_id, parent_id, flags, state, start_ns, end_ns, attributes, events, links, error = (
            span
        )
        parts = [_HEAD.pack(0x0A, 16, bytes.fromhex(trace_id), 0x12, 8, bytes.fromhex(span_id))]
        if state:
            parts.append(_sized(b"\x1a", _text(state)))
        flags |= _HAS_IS_REMOTE
        if parent_id is not None:
            parts.append(b"\x22\x08" + bytes.fromhex(parent_id))
            if kind == 2:  # a server's parent is its client's
                flags |= _IS_REMOTE
        parts.append(self._names.get(name) or self._name(name))
        parts.append(_KINDS[kind])
        parts.append(_TIMES.pack(0x39, start_ns, 0x41, end_ns))
        # Written out, not a call of `_attributes`: this loop is most of a span's time.
        known = self._of_spans
        for key, value in attributes.items():
            attribute = known.get(key)
            if attribute is None:
                attribute = self._attribute(known, b"\x4a", key)
            if value.__class__ is str:
                parts.append(attribute.texts.get(value) or attribute.text(value))
            else:
                parts.append(attribute.value(value))
        if events:
            parts += [_sized(b"\x5a", self._event(event)) for event in events]
        if links:
            parts += [_sized(b"\x6a", self._link(link)) for link in links]
        if error is not None:
            parts.append(_sized(b"\x7a", (_sized(b"\x12", _text(error)) if error else b"") + bytes((0x18, _ERROR))))
        parts.append(_FLAGS.pack(_FLAGS_TAG, flags))
        return b"".join(parts)

    def _event(self, event: Event) -> bytes:
        head = _TIME.pack(0x09, event.time_ns) + _sized(b"\x12", _text(event.name))
        return head + self._attributes(self._of_events, b"\x1a", event.attributes)

    def _link(self, link: Link) -> bytes:
        head = _HEAD.pack(0x0A, 16, bytes.fromhex(link.trace_id), 0x12, 8, bytes.fromhex(link.span_id))
        attributes = self._attributes(self._of_links, b"\x22", link.attributes)
        return head + attributes + struct.pack("<BI", 0x35, link.flags | _HAS_IS_REMOTE | _IS_REMOTE)

    def _attributes(self, known: dict[str, _Attribute], tag: bytes, attributes: Mapping[str, Value]) -> bytes:
        parts = []
        for key, value in attributes.items():
            attribute = known.get(key) or self._attribute(known, tag, key)
            parts.append(attribute.text(value) if isinstance(value, str) else attribute.value(value))
        return b"".join(parts)

    def _attribute(self, known: dict[str, _Attribute], tag: bytes, key: str) -> _Attribute:
        if len(known) >= _REMEMBERED:
            known.clear()
        attribute = known[key] = _Attribute(tag, key)
        return attribute

    def _name(self, name: str) -> bytes:
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        encoded = self._names[name] = _sized(b"\x2a", _text(name))
        return encoded


class Frame:
    """What a request has around its spans: the resource that they are of, and the scope that made them."""

    def __init__(self, resource: Mapping[str, Value], scope: str, version: str) -> None:
        """Encode it once."""
        attributes = b"".join(
            _sized(b"\x0a", _sized(b"\x0a", _text(name)) + _sized(b"\x12", _any_value(value)))
            for name, value in resource.items()
        )
        self._resource = _sized(b"\x0a", attributes)
        self._scope = _sized(b"\x0a", _sized(b"\x0a", _text(scope)) + _sized(b"\x12", _text(version)))
        self._schema = _sized(b"\x1a", SCHEMA_URL.encode())

    def request(self, spans: Sequence[bytes]) -> bytes:
        """An ExportTraceServiceRequest with what `Encoder.spans` returned, in pieces."""
        scoped = _sized(b"\x12", b"".join((self._scope, *spans, self._schema)))
        return _sized(b"\x0a", b"".join((self._resource, scoped, self._schema)))
