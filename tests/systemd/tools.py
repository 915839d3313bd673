"""Finding the machine's own tools, which an ordinary user's PATH may not show."""

import shutil

import pytest


def needs(program: str) -> str:
    """The program's path; a test is skipped where it is not installed."""
    path = shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path
