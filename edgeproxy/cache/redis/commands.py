"""The commands that edgeproxy gives Redis, each with the trace that it belongs to. Pure.

Three ways to tag, all of which MONITOR and SLOWLOG show:

- `plain`: reads ask for one key more, which is never there and has the traceparent before its URL, as SLOWLOG cuts long
  words; what is written begins with it. No right is needed beyond those of the commands themselves.
- `function`: commands are calls of a Redis Function whose first argument is the traceparent.
- `off`: no tag.
"""

from collections.abc import Sequence
from typing import Literal

from hiredis import pack_command

TagWord = Literal["plain", "function", "off"]
LIBRARY = "edgeproxy_1"
"""Name of the function library; the number is that of its interface."""
SOURCE = f"""#!lua name={LIBRARY}
local function read(keys, args)
  return redis.call('MGET', unpack(keys))
end
local function write(keys, args)
  for i = 1, #keys do
    redis.call('SET', keys[i], args[2 * i], 'PX', args[2 * i + 1])
  end
  return #keys
end
local function drop(keys, args)
  return redis.call('UNLINK', unpack(keys))
end
redis.register_function{{function_name='{LIBRARY}_read', callback=read, flags={{'no-writes'}}}}
redis.register_function('{LIBRARY}_write', write)
redis.register_function('{LIBRARY}_drop', drop)
"""
_READ = f"{LIBRARY}_read".encode()
_WRITE = f"{LIBRARY}_write".encode()
_DROP = f"{LIBRARY}_drop".encode()


type Command = tuple[bytes, ...]
"""What goes to a node in one piece, packed; a reply comes back for each part. The last one counts, unless one of the
others is an error.
"""


def _packed(*words: bytes | str | int) -> bytes:
    return pack_command(words)  # type: ignore[arg-type,no-any-return]  # its stub has a tuple of one


def _tag(name: bytes, traceparent: bytes) -> bytes:
    """A key beside another one, in the same slot: PREFIX:1:TRACEPARENT:{URL}…"""
    return name.replace(b"{", traceparent + b":{", 1)


def command(*words: bytes | str | int) -> Command:
    """Any command."""
    return (_packed(*words),)


class Commands:
    """The data commands, tagged one way."""

    def __init__(self, tag: TagWord) -> None:
        """Tag that way."""
        self._tag = tag
        self.needs_library = tag == "function"

    def read(self, keys: Sequence[bytes], primary: bytes, traceparent: bytes) -> Command:
        """Values of keys in one slot; the reply is a list that begins with them. `primary` is of the same slot."""
        if self._tag == "plain":
            return (_packed(b"MGET", *keys, _tag(primary, traceparent)),)
        if self._tag == "function":
            return (_packed(b"FCALL_RO", _READ, len(keys), *keys, traceparent),)
        return (_packed(b"MGET", *keys),)

    def write(self, values: Sequence[tuple[bytes, bytes, int]], traceparent: bytes) -> Command:
        """Set keys in one slot: name, value, and the milliseconds after which Redis forgets it."""
        if self._tag == "function":
            keys = [key for key, _, _ in values]
            words = [word for _, value, ttl_ms in values for word in (value, b"%d" % ttl_ms)]
            return (_packed(b"FCALL", _WRITE, len(keys), *keys, traceparent, *words),)
        return tuple(_packed(b"SET", key, value, b"PX", ttl_ms) for key, value, ttl_ms in values)

    def drop(self, keys: Sequence[bytes], traceparent: bytes) -> Command:
        """Forget keys in one slot."""
        if self._tag == "plain":
            return (_packed(b"UNLINK", *keys, _tag(keys[0], traceparent)),)
        if self._tag == "function":
            return (_packed(b"FCALL", _DROP, len(keys), *keys, traceparent),)
        return (_packed(b"UNLINK", *keys),)
