"""Claims: which process of a node fetches a key, so that the others wait for it instead of asking the origin as well.

A claim is a POSIX lock on one byte of an empty file, at the key's hash: the kernel gives it back when its process dies,
whatever it died of. Such locks are a process's: one that holds a claim gets it again; within a process the one fetch a
key is the pipeline's business. Keys whose hashes are equal wait for each other, no more.
"""

import errno
import fcntl
import os
from hashlib import blake2b
from pathlib import Path

_HELD = (errno.EACCES, errno.EAGAIN)


class Claims:
    """A node's claims as one process takes them."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`, made where it is missing; once a process, as its closing gives back all that the
        process has. Raises OSError.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: dict[int, int] = {}

    def take(self, key: bytes) -> bool:
        """Claim a key without waiting; False when another process has it.

        Where the kernel has no lock to give, the answer is yes: a fetch too many is better than none.
        """
        at = _offset(key)
        if at in self._held:
            self._held[at] += 1
            return True
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except OSError as error:
            return error.errno not in _HELD
        self._held[at] = 1
        return True

    def release(self, key: bytes) -> None:
        """Give a claim back, once for each `take` that was answered with yes; one that is not held is nothing."""
        at = _offset(key)
        left = self._held.get(at, 0) - 1
        if left > 0:
            self._held[at] = left
        elif left == 0:
            del self._held[at]
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)

    def close(self) -> None:
        """Give all claims back."""
        os.close(self._fd)


def _offset(key: bytes) -> int:
    # A lock ends at most at the largest file offset, 2^63 - 1.
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 2
