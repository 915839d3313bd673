"""Files that only one process may hold: a supervisor's runtime directory, a node's cache, a scribe's ledgers."""

import fcntl
import os
import time
from pathlib import Path

_POLL_S = 0.02


def take_lock(path: Path, patience_s: float) -> int | None:
    """Lock a file, made where it is missing, for this process; the lock ends with the descriptor that is returned.

    None when another process holds it for longer than `patience_s`. Raises OSError when it can't be opened or locked.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_s
    try:
        while not (held := _locked(fd)) and time.monotonic() <= deadline:
            time.sleep(_POLL_S)
    except BaseException:
        os.close(fd)
        raise
    if not held:
        os.close(fd)
        return None
    return fd


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
