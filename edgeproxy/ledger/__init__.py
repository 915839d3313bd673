"""The ledger: shared memory in which a worker keeps every request in flight and every finished record, read by other
processes.
"""

from edgeproxy.ledger.layout import SLOT_TEXT_BYTES, Counter, SlotState, Stage, Word
from edgeproxy.ledger.reader import Batch, LedgerError, LedgerReader, OpenSlot, ledger_files, remove_unfinished
from edgeproxy.ledger.record import CACHE_WORDS, FIELDS, CacheWord, Field
from edgeproxy.ledger.recovery import publish_lost
from edgeproxy.ledger.totals import GAUGES, Totals
from edgeproxy.ledger.writer import LedgerWriter

__all__ = [
    "CACHE_WORDS",
    "FIELDS",
    "GAUGES",
    "SLOT_TEXT_BYTES",
    "Batch",
    "CacheWord",
    "Counter",
    "Field",
    "LedgerError",
    "LedgerReader",
    "LedgerWriter",
    "OpenSlot",
    "SlotState",
    "Stage",
    "Totals",
    "Word",
    "ledger_files",
    "publish_lost",
    "remove_unfinished",
]
