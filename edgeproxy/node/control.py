"""The control page: a small shared mapping that the supervisor writes and that workers look at for each request.

It is how a node is told things without a message, a lock or a restart: tracing on or off, the sampler, the generation
of the configuration. Other processes (scribe, command line) read it too. This module knows the page's layout; who
decides what it says is the supervisor.

Rules that keep it whole:
- one writer, the supervisor; everything else only reads;
- numbers are aligned 64-bit words, so no reader sees half a number;
- `EPOCH` is written last after a change of the tracing settings: a reader that reads the epoch first and the settings
  after it never holds old settings for a new epoch;
- the description is guarded by `DESCRIPTION_SEQ`, odd while it is being written; readers read again when it was odd or
  has moved on;
- a new page is complete before it gets its name, so whoever opens it reads a whole one.
"""

import mmap
import os
import struct
import time
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgeproxy.node.errors import ControlPageError
from edgeproxy.tracing.sampler import SamplerKind

if TYPE_CHECKING:
    from edgeproxy.config import TracingSettings

MAGIC = int.from_bytes(b"EDGECTL\x01", "little")
VERSION = 1
PAGE_BYTES = 16384
"""Room for two longest paths and an error message beside the words."""
DESCRIPTION = 2048
_LENGTH = struct.Struct("<I")
DESCRIPTION_BYTES = PAGE_BYTES - DESCRIPTION - _LENGTH.size
ERROR_BYTES = 2000
"""How much of an error message the description keeps."""
_READ_PATIENCE_S = 1.0


class ControlWord(IntEnum):
    """Indices of the page's 64-bit words."""

    MAGIC = 0
    VERSION = 1
    EPOCH = 2
    """Bumped last after each change of the tracing settings; workers compare it on each request."""
    GENERATION = 3
    """Generation of the configuration that new workers run."""
    TRACING = 4
    """1 when tracing is on, 0 when it is off."""
    SAMPLER = 5
    """A `tracing.sampler.SamplerKind`."""
    RATIO = 6
    """The sampler's ratio, the bits of an IEEE 754 double."""
    PURGE_EPOCH = 7
    SUPERVISOR_PID = 8
    SCRIBE_PID = 9
    """0 while there is none."""
    STARTED = 10
    """When the supervisor started, nanoseconds since the epoch."""
    WORKER_RESTARTS = 11
    SCRIBE_RESTARTS = 12
    RELOAD_ERRORS = 13
    """Reloads and changes of the environment file that were refused."""
    DESCRIPTION_SEQ = 14
    WORKERS = 15
    """How many workers the node means to have."""
    STATE = 16
    """A `NodeState`."""


class NodeState(IntEnum):
    """What the supervisor is about."""

    STARTING = 0
    RUNNING = 1
    RELOADING = 2
    STOPPING = 3
    STOPPED = 4


class TracingState(NamedTuple):
    """The tracing settings as workers act on them."""

    enabled: bool
    sampler: SamplerKind
    ratio: float


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself in words."""

    node: str = ""
    listen: tuple[str, ...] = ()
    """Addresses that clients can connect to, as bound."""
    admin: str = ""
    """Address of the admin API, as configured; "" when it is off."""
    config: str = ""
    """The configuration file; "" for built-in defaults."""
    env_file: str = ""
    """The environment file that is watched."""
    env_seen: str = ""
    """Which state of it the node acts on or has refused (`watch.fingerprint`)."""
    access_log: str = ""
    """The access log's path, or "-" for the node's standard output."""
    last_error: str = ""
    """Why the last reload or change of the environment file was refused; "" after a good one."""


class Control:
    """The page, mapped: `create` for the supervisor, `open` for everyone else."""

    def __init__(self, mapping: mmap.mmap) -> None:
        """Use `create` or `open`."""
        self._map = mapping
        self.words = memoryview(mapping)[:DESCRIPTION].cast("Q")
        """The page's words, indexed by `ControlWord`: what a hot path compares."""

    @classmethod
    def create(cls, path: Path) -> "Control":
        """Put a new page at `path`, in place of an old one. Raises OSError when it can't be made."""
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Allocated, not only reserved: a full file system is an error here and not a SIGBUS later.
            os.posix_fallocate(fd, 0, PAGE_BYTES)
            control = cls(mmap.mmap(fd, PAGE_BYTES))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        words = control.words
        words[ControlWord.VERSION] = VERSION
        words[ControlWord.SUPERVISOR_PID] = os.getpid()
        words[ControlWord.STARTED] = time.time_ns()
        control._describe_bytes(msgspec.json.encode(Description()))
        words[ControlWord.MAGIC] = MAGIC
        temporary.rename(path)
        return control

    @classmethod
    def open(cls, path: Path) -> "Control":
        """Map the page at `path` for reading.

        Raises OSError when there is none (FileNotFoundError) or it can't be read, ControlPageError when it is
        no page of this version.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size != PAGE_BYTES:
                raise ControlPageError(f"{path} is not a control page of this version of edgeproxy")
            control = cls(mmap.mmap(fd, PAGE_BYTES, prot=mmap.PROT_READ))
        finally:
            os.close(fd)
        if control.words[ControlWord.MAGIC] != MAGIC or control.words[ControlWord.VERSION] != VERSION:
            control.close()
            raise ControlPageError(f"{path} is not a control page of this version of edgeproxy")
        return control

    @property
    def epoch(self) -> int:
        """How often the tracing settings were set."""
        return self.words[ControlWord.EPOCH]

    @property
    def generation(self) -> int:
        """Generation of the configuration that new workers run."""
        return self.words[ControlWord.GENERATION]

    @property
    def state(self) -> NodeState:
        """What the supervisor is about."""
        return NodeState(self.words[ControlWord.STATE])

    def tracing(self) -> TracingState:
        """Read the tracing settings. Read `epoch` before them to know what they belong to."""
        words = self.words
        return TracingState(
            bool(words[ControlWord.TRACING]), SamplerKind(words[ControlWord.SAMPLER]), _ratio(words[ControlWord.RATIO])
        )

    def set_tracing(self, settings: "TracingSettings") -> int:
        """Write the tracing settings, then a new epoch, which is returned."""
        words = self.words
        words[ControlWord.TRACING] = int(settings.enabled)
        words[ControlWord.SAMPLER] = int(SamplerKind.from_word(settings.sampler))
        words[ControlWord.RATIO] = _bits(settings.ratio)
        epoch = words[ControlWord.EPOCH] + 1
        words[ControlWord.EPOCH] = epoch
        return epoch

    def set(self, word: ControlWord, value: int) -> None:
        """Write one word; for all but the tracing settings."""
        self.words[word] = value

    def add(self, word: ControlWord) -> None:
        """Count one more; the page has one writer, so this needs no lock."""
        self.words[word] += 1

    def describe(self) -> Description:
        """Read what the node says of itself. Raises ControlPageError when it stays half written (its writer died)."""
        deadline = time.monotonic() + _READ_PATIENCE_S
        while True:
            before = self.words[ControlWord.DESCRIPTION_SEQ]
            (length,) = _LENGTH.unpack_from(self._map, DESCRIPTION)
            start = DESCRIPTION + _LENGTH.size
            raw = self._map[start : start + length]
            if not before % 2 and before == self.words[ControlWord.DESCRIPTION_SEQ]:
                return msgspec.json.decode(raw, type=Description)
            if time.monotonic() > deadline:
                raise ControlPageError("the control page's description is half written: its supervisor died writing it")

    def set_description(self, description: Description) -> None:
        """Write what the node says of itself; a long error message is cut."""
        error = description.last_error.encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore")
        self._describe_bytes(msgspec.json.encode(msgspec.structs.replace(description, last_error=error)))

    def _describe_bytes(self, raw: bytes) -> None:
        if len(raw) > DESCRIPTION_BYTES:
            raise ControlPageError(
                f"the node's description takes {len(raw)} bytes; there is room for {DESCRIPTION_BYTES}"
            )
        words = self.words
        words[ControlWord.DESCRIPTION_SEQ] += 1
        start = DESCRIPTION + _LENGTH.size
        self._map[start : start + len(raw)] = raw
        _LENGTH.pack_into(self._map, DESCRIPTION, len(raw))
        words[ControlWord.DESCRIPTION_SEQ] += 1

    def close(self) -> None:
        """Unmap the page."""
        self.words.release()
        self._map.close()


def _bits(number: float) -> int:
    return int.from_bytes(struct.pack("<d", number), "little")


def _ratio(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])
