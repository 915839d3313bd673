"""Room for the frames of the calls below one, in one piece of memory.

CPython keeps the frames of a thread's calls in pieces of 16 KB. A call for which the last piece has no room asks the
kernel for another, and gives it back when it returns: some 20 us, each time. Where the border comes is chance; the way
of a request is some forty calls deep, and a hot one may well lie there.
"""

from collections.abc import Callable

_SLOTS = 16_000
"""Of 8 bytes each. A frame as large as that gets a piece of its own, of the next power of two, and all that is called
below it has the other half: hundreds of frames.
"""


def in_one_piece[T](function: Callable[[], T]) -> T:
    """Call it, with room for the frames of a thread's whole work."""
    return function()


in_one_piece.__code__ = in_one_piece.__code__.replace(co_stacksize=_SLOTS)
