"""Finding the line of a request whose worker died while it wrote that line to the log itself."""

import os
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.logging import is_logged, nginx_line
from tests.ledger.parts import prefix, record

FORMATS = pytest.mark.parametrize("log_format", ["json", "nginx"])


def line(log_format: str, seq: int, **changes: Any) -> bytes:
    return nginx_line(record(seq, **changes)) if log_format == "nginx" else record(seq, **changes)


@FORMATS
def test_a_line_is_found_among_others(tmp_path: Path, log_format: Any) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"".join(line(log_format, seq) for seq in range(100)))
    assert is_logged(str(log), log_format, prefix(50))
    assert not is_logged(str(log), log_format, prefix(100))


@FORMATS
def test_a_torn_line_is_no_line(tmp_path: Path, log_format: Any) -> None:
    log = tmp_path / "access.log"
    torn = line(log_format, 1)[:-8]
    for content in (torn, torn + b"\n", torn + b"\n" + line(log_format, 2)):
        log.write_bytes(content)
        assert not is_logged(str(log), log_format, prefix(1))


@FORMATS
def test_a_file_that_was_just_rotated_is_searched_too(tmp_path: Path, log_format: Any) -> None:
    (tmp_path / "access.log").write_bytes(line(log_format, 3))
    (tmp_path / "access.log.1").write_bytes(line(log_format, 2))
    for age in range(2, 6):
        old = tmp_path / f"access.log.{age}"
        old.write_bytes(b"")
        os.utime(old, (1, 1))
    assert is_logged(str(tmp_path / "access.log"), log_format, prefix(2))


@FORMATS
@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b'{"ts":"2026-03-04T05:06:07.089012Z","tra'])
def test_without_ids_nothing_is_found(tmp_path: Path, log_format: Any, text: bytes) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(line(log_format, 1))
    assert not is_logged(str(log), log_format, text)


@pytest.mark.parametrize("path", ["-", "/nonexistent/access.log", "/dev/null"])
def test_a_log_that_cant_be_read_has_no_lines(path: str) -> None:
    assert not is_logged(path, "json", prefix(1))


def test_text_from_clients_is_not_taken_for_a_pattern(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(nginx_line(record(1, path="/(a|b)*[.]?x")))
    assert is_logged(str(log), "nginx", prefix(1, path="/(a|b)*[.]?x"))
    assert not is_logged(str(log), "nginx", prefix(1, path="/.*"))
