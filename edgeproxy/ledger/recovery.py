"""Finishes a dead worker's ledger: every request that was in flight in it gets its line, `outcome: lost`, in its own
ring.

Called once the reader has taken the dead worker's place (`LedgerReader.take_over`). It may die at any moment as well:
whatever it has not done, the next one does, and nothing twice. It decides which requests have a line already and
renders the others; writing the lines out is the drain's business.

Rules that keep it whole:
- a slot whose `seq` is that of the ring's newest line has its line: its worker, or an earlier recovery, died between
  the two steps of publishing. That slot is closed first, before anything else becomes the newest line;
- then slot by slot: line into the ring, slot closed;
- a slot that says APPENDING belongs to a worker that died while it wrote the line to the log file itself: whether the
  line is there only the file can tell (`is_logged`).
"""

from collections.abc import Callable
from datetime import datetime

from edgeproxy.ledger.layout import Counter, SlotState
from edgeproxy.ledger.reader import LedgerReader
from edgeproxy.ledger.record import lost_line, seq_of


def publish_lost(ledger: LedgerReader, now: datetime, is_logged: Callable[[bytes], bool]) -> bool:
    """Publish the lines of the requests that were lost with the worker.

    False when the ring had no room for all of them: drain it, then call again. `is_logged` says of a slot's text
    whether the log file has its line.
    """
    slots = ledger.open_slots()
    newest = seq_of(ledger.last_line())
    for slot in slots:
        if slot.seq == newest:
            ledger.close_slot(slot.slot)
    for slot in sorted(slots, key=lambda slot: slot.seq):
        if slot.seq == newest:
            continue
        if slot.state is not SlotState.APPENDING or not is_logged(slot.text):
            line = lost_line(slot.text, seq=slot.seq, stage=slot.stage, worker=ledger.worker, pid=ledger.pid, now=now)
            if not ledger.publish(line):
                return False
            _count(ledger)
        ledger.close_slot(slot.slot)
    return True


def _count(ledger: LedgerReader) -> None:
    for counter in (Counter.REQUESTS, Counter.STATUS_1XX, Counter.OUTCOME_LOST):
        ledger.counters[counter] += 1
