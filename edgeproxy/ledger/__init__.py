"""The ledger: shared memory in which a worker keeps every request in flight and every finished record, read by other processes."""

from edgeproxy.ledger.layout import SLOT_TEXT_BYTES, Counter, SlotState, Stage, Word
from edgeproxy.ledger.writer import LedgerWriter

__all__ = ["SLOT_TEXT_BYTES", "Counter", "LedgerWriter", "SlotState", "Stage", "Word"]
