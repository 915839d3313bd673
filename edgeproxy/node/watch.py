"""Watching one small file, whatever its editors do to it: written in place, replaced, linked to, removed, made later.

The kernel tells of changes in directories, so those are watched in which the file, and every symbolic link on the way
to it, has its name. Knows nothing of what is in the file.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import structlog
from watchfiles import awatch

LOOK_S = 0.5
"""How often the file is looked at besides: some file systems (network mounts, some containers') tell nothing."""
_MAX_LINKS = 40

_log = structlog.get_logger()


def fingerprint(path: Path) -> str:
    """What tells one state of the file from another; "" when there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def directories(path: Path) -> frozenset[Path]:
    """The directories in which a change can make `path` another file; where one is missing, the nearest above it."""
    found: set[Path] = set()
    waiting = list(path.absolute().parts[::-1])
    here = Path(waiting.pop())
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            here = here.parent
            continue
        step = here / part
        if step.is_symlink() and links < _MAX_LINKS:
            links += 1
            found.add(here)
            target = step.readlink()
            waiting += target.parts[:0:-1] if target.is_absolute() else target.parts[::-1]
            here = Path(target.parts[0]) if target.is_absolute() else here
        elif waiting and step.is_dir():
            here = step
        else:
            found.add(here)
            break
    return frozenset(found)


async def changes(path: Path) -> AsyncIterator[None]:
    """Yield after each change of the file, in some tens of milliseconds, or `LOOK_S` where the kernel tells nothing."""
    last = fingerprint(path)
    told = True
    while True:
        try:
            async with contextlib.aclosing(_until_moved(path)) as moments:
                async for event in moments:
                    told = True
                    seen, last = last, fingerprint(path)
                    if event or seen != last:
                        yield
        except OSError as error:  # the user's inotify watches are used up, or the directory went away this moment
            if told:
                _log.warning("file_not_watched", path=path, error=str(error), instead=f"looked at every {LOOK_S} s")
            told = False
            await asyncio.sleep(LOOK_S)
        seen, last = last, fingerprint(path)
        if seen != last:
            yield


async def _until_moved(path: Path) -> AsyncGenerator[bool]:
    """Yield True after each event and False every `LOOK_S`, for as long as the directories stay the same."""
    watched = _identities(path)
    # A busy directory must not hold the news back: at most 200 ms are gathered (watchfiles' own default is 1600).
    events = awatch(
        *watched,
        watch_filter=None,
        debounce=200,
        step=20,
        recursive=False,
        rust_timeout=int(LOOK_S * 1000),
        yield_on_timeout=True,
    )
    async with contextlib.aclosing(events):
        async for batch in events:
            yield bool(batch)
            if _identities(path) != watched:
                return


def _identities(path: Path) -> dict[Path, int]:
    return {directory: directory.stat().st_ino for directory in directories(path)}
