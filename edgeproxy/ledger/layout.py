"""The ledger file's layout: where each number and each byte lies in the memory that a worker shares with its readers.

This module knows offsets and names, nothing of who writes or reads. A ledger file is, in this order: a header page of
64-bit words (identity, ring positions, acknowledgements, counters), the in-flight slots, the ring of finished records.

Rules that keep it whole:
- the worker alone writes `HEAD`, the slots, the acknowledgements and the counters; the scribe alone writes `TAIL` and
  `BATCH_*`; once the worker is dead, who holds the file's lock in its stead writes what the worker would have;
- bytes first, position after: a record is in the ring before `HEAD` covers it, a slot's text is there before its state
  says open;
- a slot is closed only after its record is in the ring, so whatever moment the worker dies at, a request is in a slot
  or in the ring, or in both with the same `seq` as the ring's last record: never in neither.
"""

import struct
from enum import IntEnum

MAGIC = int.from_bytes(b"EDGELDG\x01", "little")
VERSION = 1
FILE_PREFIX = "ledger-"

HEADER_BYTES = 4096
SLOT_BYTES = 1024
SLOT_HEADER = struct.Struct("<QHBB")
"""A slot's head: sequence number, length of the text, stage, state (written last)."""
SLOT_TEXT = 16
"""Offset of a slot's text: the record's line as far as it is known when the request begins (valid JSON but for its
end).
"""
SLOT_TEXT_BYTES = SLOT_BYTES - SLOT_TEXT
SLOT_STAGE = 10
SLOT_STATE = 11


class Word(IntEnum):
    """Indices of the header's 64-bit words."""

    MAGIC = 0
    VERSION = 1
    PID = 2
    WORKER = 3
    """The worker's index on its node."""
    GENERATION = 4
    """Generation of the configuration that the worker runs."""
    STARTED = 5
    """When the worker started, nanoseconds since the epoch."""
    SLOTS = 6
    RING_BYTES = 7
    HEAD = 8
    """Bytes ever published into the ring."""
    TAIL = 9
    """Bytes ever taken out of the ring."""
    BATCH_END = 10
    """The `TAIL` that the write under way will reach; at or below `TAIL` there is none."""
    BATCH_INODE = 11
    """Inode of the log file that the write under way goes to."""
    BATCH_OFFSET = 12
    """Size in bytes that the log file had before the write under way."""
    ACK_EPOCH = 13
    """The control page's epoch that the worker acts on."""
    ACK_TRACING = 14
    """1 when the worker traces, 0 when it does not."""
    DRAINING = 15
    """1 once the worker takes no new connections."""
    ACK_PURGE = 16
    """Number of the last purge rule that the worker acts on."""
    COUNTERS = 64
    """The first counter: word `COUNTERS + Counter`."""


class Counter(IntEnum):
    """Numbers that every request bumps, kept in shared memory so that no reader needs to parse a line for them."""

    REQUESTS = 0
    """Requests whose record was published."""
    BYTES_IN = 1
    """Bytes of request bodies received from clients."""
    BYTES_OUT = 2
    """Bytes of response bodies sent to clients."""
    STATUS_1XX = 3
    """Requests that ended without a final status."""
    STATUS_2XX = 4
    STATUS_3XX = 5
    STATUS_4XX = 6
    STATUS_5XX = 7
    CACHE_HIT = 8
    CACHE_MISS = 9
    CACHE_STALE = 10
    CACHE_REVALIDATED = 11
    CACHE_EXPIRED = 12
    CACHE_COLLAPSED = 13
    CACHE_BYPASS = 14
    OUTCOME_OK = 15
    OUTCOME_CLIENT_ABORT = 16
    OUTCOME_ORIGIN_ERROR = 17
    OUTCOME_TIMEOUT = 18
    OUTCOME_REFUSED = 19
    OUTCOME_LOST = 20
    """Requests that were in flight in a worker that died; counted by the scribe."""
    SAMPLED = 21
    CONNECTIONS = 22
    """Client connections ever accepted."""
    CONNECTIONS_OPEN = 23
    """Client connections open now (a gauge)."""
    ORIGIN_CONNECTS = 24
    """Connections opened to origins."""
    ORIGIN_RETRIES = 25
    """Origin attempts after the first of a request."""
    RING_FULL = 26
    """Records that the worker wrote to the log itself, the ring being full."""
    LINES_LOST = 27
    """Records that neither the ring nor the log file took."""
    CACHE_BYTES = 28
    """Bytes held by the worker's hot memory (a gauge)."""
    CACHE_ENTRIES = 29
    """Entries held by the worker's hot memory (a gauge)."""
    CACHE_EVICTIONS = 30
    DURATION_US = 31
    """Sum of the requests' durations, microseconds."""
    CONNECTIONS_REFUSED = 32
    """Client connections turned away because there were too many (limits.connections)."""
    CACHE_REFRESHES = 33
    """Stale responses validated in the background; no requests of clients'."""
    STORE_OPERATIONS = 34
    """Operations of a store on other hosts (Redis), those that failed included."""
    STORE_FAILURES = 35
    """Those that came to nothing: no answer in time, or an error."""
    STORE_DROPPED = 36
    """Responses that could not be stored there."""
    STORE_DAMAGED = 37
    """Values found there that were not as they should be."""
    STORE_BREAKS = 38
    """How often one of its nodes was given a rest."""
    STORE_NODES = 39
    """Its nodes (a gauge)."""
    STORE_NODES_WELL = 40
    """Those of them that answer (a gauge)."""
    STORE_USABLE = 41
    """1 where what is found there may be used, the purge rules being known (a gauge)."""
    SPANS_UNSEEN = 42
    """Spans of records that the worker wrote to the log itself, the ring being full: nobody exports them."""
    SCRIPT_FLOWS = 43
    """Requests that operators' scripts saw."""
    SCRIPT_ERRORS = 44
    """Hooks of scripts that failed."""
    SCRIPT_TIMEOUTS = 45
    """Those of them that took longer than addons.timeout."""
    SCRIPT_BLOCKS = 46
    """Hooks that kept the worker from everything else for more than 50 ms."""
    SCRIPT_LOADS = 47
    """How often a script was loaded: at the start, and whenever it changes."""
    SCRIPT_LOAD_FAILURES = 48
    """How often a script could not be; the one loaded before it, if there is one, goes on."""


class SlotState(IntEnum):
    """What a slot holds."""

    FREE = 0
    OPEN = 1
    APPENDING = 2
    """The ring was full: the worker is writing this request's line to the log file itself."""


class Stage(IntEnum):
    """How far a request has come; the slot and the record both name it, and that is how a lost request is found."""

    RECEIVED = 0
    LOOKUP = 1
    STORE_WAIT = 2
    COLLAPSED = 3
    CONNECT = 4
    REQUEST_SENT = 5
    FIRST_BYTE = 6
    STREAMING = 7
    DONE = 8
    SCRIPT = 9
    """An operator's script has it; comes after RECEIVED where there is one, and its number last."""

    @property
    def word(self) -> str:
        """The stage as it stands in records, lower case."""
        return self.name.lower()


def ring_offset(slots: int) -> int:
    """Where the ring begins in a file with that many slots, in bytes."""
    return HEADER_BYTES + slots * SLOT_BYTES


def file_bytes(slots: int, ring_bytes: int) -> int:
    """Size of a ledger file."""
    return ring_offset(slots) + ring_bytes
