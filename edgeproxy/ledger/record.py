"""The record: what one finished request is as a line of JSON, field by field, and the line of a request that was lost
with its worker.

The fields and their order are a contract with whoever reads the access log (docs/access-log.md). The worker renders
its own lines; here stands what they must hold, and the one line that no worker can render any more. Pure: values in,
bytes out.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

from edgeproxy.ledger.layout import Stage

CacheWord = Literal["HIT", "MISS", "STALE", "REVALIDATED", "EXPIRED", "COLLAPSED", "BYPASS"]
"""What the cache did for a request."""
CACHE_WORDS: tuple[CacheWord, ...] = get_args(CacheWord)


class Field(NamedTuple):
    """One key of a record."""

    name: str
    kind: str
    """JSON types that its value may have."""
    meaning: str


FIELDS = (
    Field("ts", "string", "When the request's head was complete: RFC 3339, UTC, microseconds."),
    Field("head_ms", "number", "Milliseconds that the head took to arrive before that; 0 where it came at once."),
    Field("trace_id", "string", "Trace id, 32 hex digits; minted here unless a trusted client brought one."),
    Field("span_id", "string", "This request's span id, 16 hex digits; distinct for every line."),
    Field("parent_id", "string or null", "The client's span id, when its trace is continued."),
    Field(
        "restarted_from",
        "string or null",
        "Trace id and span id that an untrusted client brought, joined by a dash; the trace begins anew here.",
    ),
    Field("sampled", "boolean", "Whether the trace is sampled, as the origin was told."),
    Field("request_id", "string", "Request id (UUIDv7), as sent to the origin in `X-Request-Id`."),
    Field("node", "string", "Name of the node (`node.name`)."),
    Field("worker", "number", "Index of the worker."),
    Field("seq", "number", "The request's number in its worker's life."),
    Field("client", "string or null", "The client's IP address; null where there is none (`caused_by`)."),
    Field("method", "string or null", "Request method; null when the head could not be read, as are the next four."),
    Field("scheme", "string or null", "`http` or `https`."),
    Field("host", "string or null", "Host that the client asked for; empty when it named none."),
    Field("path", "string or null", "Path as the client sent it, without the query."),
    Field("query", "string or null", "Query as the client sent it, without the `?`; empty when there is none."),
    Field("protocol", "string or null", "`HTTP/1.1` or `HTTP/1.0`."),
    Field("status", "number or null", "Status sent to the client; null when none was."),
    Field("bytes_in", "number or null", "Bytes of request body received from the client."),
    Field("bytes_out", "number or null", "Bytes of response body sent to the client."),
    Field("route", "string or null", "The route that it took: its `match`."),
    Field("cache_key", "string or null", "The key that it was looked up by, where that is not its URL."),
    Field("cache", "string or null", ", ".join(f"`{word}`" for word in CACHE_WORDS[:-1]) + f" or `{CACHE_WORDS[-1]}`."),
    Field("cache_age", "number or null", "Age of the stored response that was served, seconds."),
    Field(
        "cache_ttl",
        "number or null",
        "For how many seconds what was served or stored is still fresh; negative: it has been stale since.",
    ),
    Field("cache_tier", "string or null", "Where the stored response lay: `memory`, `embedded` or `redis`."),
    Field(
        "filled_by",
        "string or null",
        "`traceparent` of the request that filled the cache entry or, collapsed, that fetched.",
    ),
    Field(
        "caused_by",
        "string or null",
        "For a fetch that no client waits for (a stale response validated in the background): `traceparent` of the "
        "request that was its cause; `client` is null then.",
    ),
    Field("lookup_ms", "number or null", "Milliseconds that looking it up took: 0 in hot memory, null if it was not."),
    Field(
        "stored_at_ms",
        "number or null",
        "When the response was given to the cache to store, milliseconds after the request's first byte.",
    ),
    Field(
        "store",
        "array",
        "Each operation of a store that answers later (Redis): `op`, `span_id`, `node`, `slot`, `us`, `outcome` "
        "(`hit`, `miss`, `ok`, `error`), `error`, `at_ms` (when it began, after the request's first byte).",
    ),
    Field("origin", "string or null", "Name of the origin that was asked."),
    Field("origin_status", "number or null", "Status that the origin answered."),
    Field("origin_reused", "boolean or null", "Whether the last attempt used a connection that was open before."),
    Field("dns_ms", "number or null", "Milliseconds the last attempt spent on name resolution."),
    Field("connect_ms", "number or null", "… on connecting."),
    Field("tls_ms", "number or null", "… on the TLS handshake."),
    Field("send_ms", "number or null", "… on sending the request."),
    Field("first_byte_ms", "number or null", "… from the request sent to the response's first byte."),
    Field("transfer_ms", "number or null", "… from the first byte to the last."),
    Field(
        "attempts",
        "array",
        "Each attempt to get the response from an origin, in order: address, phase times, status or error.",
    ),
    Field("duration_ms", "number", "Milliseconds from the request's first byte to the response's last."),
    Field("outcome", "string", "`ok`, `client_abort`, `origin_error`, `timeout`, `refused` or `lost`."),
    Field("stage", "string", "How far the request came: " + ", ".join(f"`{stage.word}`" for stage in Stage) + "."),
    Field(
        "error",
        "object or null",
        "What went wrong: `type`, `message`, and `causes`, the chain below it, outermost first.",
    ),
    Field(
        "sampling",
        "string or null",
        "Why the trace is sampled or not: `parent`, `ratio`, `always_on`, `always_off`, `rule`, `cap`, `adaptive`, "
        "`floor`, `remote`, `off`; or why it is exported all the same: `error`, `slow`.",
    ),
    Field("exported", "boolean", "Whether its spans are exported."),
    Field("user_agent", "string or null", "The client's `User-Agent`."),
    Field("referer", "string or null", "The client's `Referer`."),
    Field(
        "headers",
        "object",
        "The request headers on `log.request_headers` that the client sent: lower-case names, values as text (several "
        "fields of a name joined by `, `), cut at 1024 bytes.",
    ),
    Field(
        "script",
        "object or null",
        "What operators' scripts had to do with it: `names` of those that saw it, `rewritten` (what they made of its "
        "target URI, or null), `log` (what they say themselves), `spans` (those that they opened).",
    ),
)
"""All keys of a record in their order; every record has all of them."""

_SEQ = re.compile(rb',"seq":(\d+),')
_NOTHING: dict[str, object] = {"string": "", "number": 0, "boolean": False, "array": [], "object": {}}
"""What a lost line says where not even its slot's text has the field and null is no answer."""


def markdown_table() -> str:
    """Render the fields as docs/access-log.md shows them."""
    rows = [f"| `{field.name}` | {field.kind} | {field.meaning} |" for field in FIELDS]
    return "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def seq_of(line: bytes) -> int | None:
    """Read the sequence number out of a record's line: no quote within a value is unescaped, so no client can forge
    the key.
    """
    match = _SEQ.search(line)
    return int(match[1]) if match else None


def known_fields(text: bytes) -> dict[str, Any]:
    """Read a record's beginning as far as it goes: the fields that are whole in it."""
    rest = text.decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    fields: dict[str, Any] = {}
    position = 1
    try:
        while position < len(rest):
            name, position = decoder.raw_decode(rest, position)
            value, position = decoder.raw_decode(rest, position + 1)
            # A number at the very end may have been cut in two; what is followed by a comma is whole.
            if rest[position : position + 1] != ",":
                break
            fields[str(name)] = value
            position += 1
    except ValueError:
        pass
    return fields


def lost_line(text: bytes, *, seq: int, stage: Stage, worker: int, pid: int, now: datetime) -> bytes:
    """Render the line of a request that was in flight when its worker died: `text` is its slot's, `now` when the loss
    was found.
    """
    known = known_fields(text)
    message = f"worker {worker} (pid {pid}) died while the request was in flight"
    record: dict[str, Any] = {field.name: known.get(field.name, _NOTHING.get(field.kind)) for field in FIELDS}
    record["ts"] = known.get("ts") or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    record["worker"] = worker
    record["seq"] = seq
    record["duration_ms"] = _milliseconds(record["ts"], now)
    record["outcome"] = "lost"
    record["sampling"] = "error"
    record["exported"] = True
    record["stage"] = stage.word
    record["error"] = {"type": "worker_died", "message": message, "causes": []}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _milliseconds(since: object, now: datetime) -> float:
    try:
        return max(0.0, round((now - datetime.fromisoformat(str(since))).total_seconds() * 1000, 3))
    except (TypeError, ValueError):
        return 0.0
