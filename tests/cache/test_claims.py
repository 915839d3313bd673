"""Claims: one process of a node fetches a key, the others wait."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeproxy.cache.claims import Claims
from tests.support import until

ROOT = Path(__file__).parent.parent.parent
KEY = b"http://example.com/page"

OTHER = """
import sys
from pathlib import Path
from edgeproxy.cache.claims import Claims
claims = Claims(Path(sys.argv[1]))
for line in sys.stdin:
    what, key = line.split()
    print(getattr(claims, what)(key.encode()), flush=True)
"""


class OtherProcess:
    """Another process that claims what it is told to."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-c", OTHER, str(path)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, what: str, key: bytes = KEY) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, key.decode(), file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def claims(path: Path) -> Iterator[Claims]:
    made = Claims(path)
    yield made
    made.close()


@contextmanager
def another(path: Path) -> Iterator[OtherProcess]:
    other = OtherProcess(path)
    with other.process:
        try:
            yield other
        finally:
            other.process.kill()


def test_only_one_process_has_a_key_until_it_gives_it_back(path: Path, claims: Claims) -> None:
    with another(path) as other:
        assert claims.take(KEY)
        assert other("take") == "False"
        claims.release(KEY)
        assert other("take") == "True"
        assert not claims.take(KEY)
        other("release")
        assert claims.take(KEY)


def test_keys_do_not_wait_for_each_other(path: Path, claims: Claims) -> None:
    with another(path) as other:
        for index in range(100):
            assert claims.take(b"key-%d" % index)
        for index in range(100, 200):
            assert other("take", b"key-%d" % index) == "True"


def test_a_process_that_has_a_key_gets_it_again_and_gives_it_back_as_often(path: Path, claims: Claims) -> None:
    with another(path) as other:
        assert claims.take(KEY)
        assert claims.take(KEY)
        claims.release(KEY)
        assert other("take") == "False"
        claims.release(KEY)
        assert other("take") == "True"


def test_what_a_killed_process_had_is_free(path: Path, claims: Claims) -> None:
    with another(path) as other:
        assert other("take") == "True"
        assert not claims.take(KEY)
        other.process.kill()
        until(lambda: claims.take(KEY), "the kernel has freed it")


def test_giving_back_what_one_does_not_have_changes_nothing(path: Path, claims: Claims) -> None:
    with another(path) as other:
        assert other("take") == "True"
        claims.release(KEY)
        assert not claims.take(KEY)


def test_all_is_given_back_at_the_close(path: Path) -> None:
    claims = Claims(path)
    with another(path) as other:
        assert claims.take(KEY)
        claims.close()
        assert other("take") == "True"


def test_the_file_stays_empty_and_is_its_owners(path: Path, claims: Claims) -> None:
    claims.take(KEY)
    assert path.stat().st_size == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_the_kernel_has_no_lock_to_give_everybody_fetches(claims: Claims, path: Path) -> None:
    os.close(claims._fd)
    claims._fd = os.open(path, os.O_RDONLY)  # a read-only descriptor takes no exclusive lock: EBADF
    assert claims.take(KEY)
    claims.release(KEY)


def test_every_hash_is_an_offset_that_can_be_locked(claims: Claims) -> None:
    for offset in (0, 2**62 - 1):
        fcntl.lockf(claims._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    assert all(claims.take(b"%d" % index) for index in range(1000))
