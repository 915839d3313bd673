"""Reads back what a log has, the files that were rotated away from it included: newest first, of any size, nothing kept
but what is asked for.

For commands that look for something. Knows nothing of what lines say; for what comes next there is `follow`.
"""

import gzip
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from edgeproxy.logging.follow import Follower


def log_files(path: Path) -> list[Path]:
    """The log and what was rotated away from it, newest first, each file once whatever it is called meanwhile."""
    names = [path]
    try:
        beside = path.parent.iterdir()
        rotated = [one for one in beside if one.name.startswith((f"{path.name}.", f"{path.name}-"))]
        names += sorted(rotated, key=lambda one: one.stat().st_mtime, reverse=True)
    except OSError:
        pass  # it may not be allowed to look: the log itself is what counts
    return names


def newest[T](path: Path, read: Callable[[bytes], Iterable[T]], limit: int) -> list[T]:
    """The last things that `read` finds in a file's lines, the last one first.

    Raises OSError, and EOFError or zlib.error where a compressed file is damaged.
    """
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            return list(deque((found for line in file for found in read(line)), limit))[::-1]
    follower = Follower(path)
    try:
        return list(islice((found for line in follower.last() for found in reversed([*read(line)])), limit))
    finally:
        follower.close()
