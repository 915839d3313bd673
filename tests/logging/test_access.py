"""Lines in Nginx's format, and the sink through which a worker appends to the log itself."""

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.logging import AppendSink, nginx_line
from tests.ledger.parts import ROOT, record, wait_until

LINE = re.compile(
    rb'(?P<client>\S+) - (?P<trace>\S+) \[(?P<time>[^]]+)\] "(?P<request>[^"]*)" (?P<status>\S+) (?P<size>\S+) '
    rb'"(?P<referer>[^"]*)" "(?P<agent>[^"]*)" (?P<cache>\S+) (?P<duration>\d+\.\d{3})\n'
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from edgeproxy.logging.access import _time_local

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    _time_local.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    _time_local.cache_clear()


def test_a_record_becomes_the_line_that_tools_for_nginx_know() -> None:
    line = nginx_line(
        record(5, query="a=1&b=2", referer="http://ref.test/", user_agent="curl/8", duration_ms=1234.5678)
    )
    assert line == (
        b"192.0.2.7 - 00000000000000000000000000000005 [04/Mar/2026:05:06:08 +0000] "
        b'"GET /5?a=1&b=2 HTTP/1.1" 200 785 "http://ref.test/" "curl/8" HIT 1.235\n'
    )


def test_nothing_is_a_dash() -> None:
    line = nginx_line(
        record(5, status=None, bytes_out=None, cache=None, user_agent=None, method=None, path=None, duration_ms=0)
    )
    assert line.endswith(b'[04/Mar/2026:05:06:07 +0000] "-" - - "-" "-" - 0.000\n')


def test_the_time_is_local_and_that_of_the_requests_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CST-8")
    time.tzset()
    assert b"[04/Mar/2026:13:06:10 +0800]" in nginx_line(record(5, duration_ms=3000))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ('say "hi"', rb"say \x22hi\x22"),
        ("back\\slash", rb"back\x5Cslash"),
        ("line\r\nbreak", rb"line\x0D\x0Abreak"),
        ("tab\tnul\0", rb"tab\x09nul\x00"),
        ("del\x7f", rb"del\x7F"),
        ("caf\u00e9", rb"caf\xC3\xA9"),
        ("bell\u0007 esc\u001b[31m", rb"bell\x07 esc\x1B[31m"),
        ("\u2028", rb"\xE2\x80\xA8"),
    ],
)
def test_untrusted_text_is_escaped_as_nginx_does(text: str, escaped: bytes) -> None:
    match = LINE.fullmatch(nginx_line(record(5, user_agent=text)))
    assert match
    assert match["agent"] == escaped


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_breaks_a_line_or_its_quotes(path: str, query: str, agent: str, referer: str) -> None:
    assert LINE.fullmatch(nginx_line(record(5, path=path, query=query, user_agent=agent, referer=referer)))


def test_what_is_no_record_is_passed_on() -> None:
    assert nginx_line(b"what?\n") == b"what?\n"
    assert nginx_line(b'{"ts":"never"}\n') == b'{"ts":"never"}\n'


def test_nginx_itself_writes_the_same_escapes(tmp_path: Path) -> None:
    """The oracle: a real nginx logs a request with such a User-Agent."""
    nginx = next((p for p in ("/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx") if Path(p).exists()), None)
    if nginx is None:
        pytest.skip("nginx is not installed")
    listening, log = tmp_path / "nginx.sock", tmp_path / "access.log"
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ log_format x '\"$http_user_agent\"'; access_log {log} x; client_body_temp_path {tmp_path}/t1;\n"
        f"proxy_temp_path {tmp_path}/t2; fastcgi_temp_path {tmp_path}/t3; uwsgi_temp_path {tmp_path}/t4;\n"
        f"scgi_temp_path {tmp_path}/t5; server {{ listen unix:{listening}; return 204; }} }}\n"
    )
    agent = 'x"\\\t\u00e9\u2028~ end'
    server = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            # The file is there before nginx listens on it.
            wait_until(lambda: client.connect_ex(str(listening)) == 0, "nginx listens")
            client.sendall(b"GET / HTTP/1.0\r\nUser-Agent: " + agent.encode() + b"\r\n\r\n")
            while client.recv(1000):
                pass
        wait_until(lambda: log.exists() and log.read_bytes().endswith(b"\n"), "nginx has logged it")
    finally:
        server.kill()
        server.wait()
    match = LINE.fullmatch(nginx_line(record(5, user_agent=agent)))
    assert match
    assert log.read_bytes().splitlines()[0] == b'"' + match["agent"] + b'"'


# The sink.


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def test_a_sink_appends_whole_lines_to_a_file_that_it_makes(log: Path) -> None:
    sink = AppendSink(str(log))
    assert sink.append(record(1))
    assert sink.append(record(2))
    assert log.read_bytes() == record(1) + record(2)
    assert log.stat().st_mode & 0o777 == 0o640 & ~_umask()
    sink.close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_sink_writes_the_format_that_is_asked_for(log: Path) -> None:
    sink = AppendSink(str(log), "nginx")
    assert sink.append(record(1))
    assert log.read_bytes() == nginx_line(record(1))
    sink.close()


def test_a_sink_follows_rotation(log: Path, tmp_path: Path) -> None:
    sink = AppendSink(str(log))
    assert sink.append(record(1))
    old = log.rename(tmp_path / "access.log.1")
    # Half a rotation: the new file is about to be made by someone else, with the mode that they want.
    assert sink.append(record(2))
    assert not log.exists()
    log.touch(0o600)
    assert sink.append(record(3))
    assert old.read_bytes() == record(1) + record(2)
    assert log.read_bytes() == record(3)
    log.unlink()
    assert sink.append(record(4))
    assert log.read_bytes() == record(4)
    sink.close()


def test_a_sink_cuts_off_a_torn_record_and_leaves_other_text_alone(log: Path) -> None:
    log.write_bytes(b"other" + record(1)[:50])
    sink = AppendSink(str(log))
    assert sink.append(record(1))
    assert log.read_bytes() == b"other" + record(1)[:50] + b"\n" + record(1)
    with log.open("ab") as file:
        file.write(record(2)[:50])
    assert sink.append(record(3))
    assert log.read_bytes() == b"other" + record(1)[:50] + b"\n" + record(1) + record(3)
    sink.close()


@pytest.mark.parametrize("path", ["missing/access.log", "."])
def test_a_line_that_cant_be_kept_is_refused_and_nothing_raised(tmp_path: Path, path: str) -> None:
    sink = AppendSink(str(tmp_path / path))
    assert not sink.append(record(1))
    (tmp_path / "missing").mkdir()
    assert sink.append(record(1)) == (path != ".")
    sink.close()


def test_a_full_disk_leaves_no_half_line(log: Path) -> None:
    """The process may write files of so many bytes and no more: a full disk, as the kernel shows it to the writer."""
    program = f"""
import resource
from tests.ledger.parts import record
from edgeproxy.logging import AppendSink
sink = AppendSink({str(log)!r})
assert sink.append(record(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (len(record(1)) + 100, resource.RLIM_INFINITY))
assert not sink.append(record(2))
assert not sink.append(record(3))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert sink.append(record(4))
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    assert log.read_bytes() == record(1) + record(4)


def test_a_device_that_is_full_is_no_place_for_a_line() -> None:
    assert not AppendSink("/dev/full").append(record(1))


def stdout_program(count: int) -> list[str]:
    program = f"""
import sys
from tests.ledger.parts import record
from edgeproxy.logging import AppendSink
sink = AppendSink("-")
print(sum(sink.append(record(seq)) for seq in range({count})), file=sys.stderr)
"""
    return [sys.executable, "-c", program]


def test_standard_output_that_nobody_reads_never_blocks() -> None:
    reading, writing = os.pipe()
    done = subprocess.run(
        stdout_program(1000), cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=True
    )
    os.close(writing)
    kept = int(done.stderr)
    assert 0 < kept < 1000
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"".join(record(seq) for seq in range(kept))


def test_standard_output_can_be_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            stdout_program(5), cwd=ROOT, stdout=theirs.fileno(), stderr=subprocess.PIPE, timeout=60, check=True
        )
        assert int(done.stderr) == 5
        assert ours.recv(100_000) == b"".join(record(seq) for seq in range(5))


def test_standard_output_can_be_a_file_that_others_write_to(log: Path) -> None:
    program = stdout_program(2)
    program[-1] = f"import os\nos.write(1, b'first\\n')\n{program[-1]}\nos.write(1, b'last\\n')"
    with log.open("wb") as file:
        subprocess.run(program, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, timeout=60, check=True)
    assert log.read_bytes() == b"first\n" + record(0) + record(1) + b"last\n"


def test_another_users_pipe_is_written_to_without_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pipe can't be opened anew, as under `sudo -u`."""
    from edgeproxy.logging import target

    reading, writing = os.pipe()
    saved = os.dup(1)
    monkeypatch.setattr(target, "_STDOUT_LINK", "/proc/self/fd/nothing")
    os.dup2(writing, 1)
    try:
        sink = AppendSink("-")
        kept = 0
        while sink.append(record(kept)):
            kept += 1
        sink.close()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(writing)
    assert kept
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"".join(record(seq) for seq in range(kept))


def test_lines_too_long_for_a_pipe_to_take_whole_are_refused() -> None:
    long: Any = record(1, user_agent="x" * 5000)
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    sink = AppendSink(f"/proc/self/fd/{theirs}")
    assert sink.append(record(1))
    assert not sink.append(long)
    assert os.read(ours, 100_000) == record(1)
    os.close(ours)
    os.close(theirs)
    sink.close()
