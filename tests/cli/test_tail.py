"""`edgeproxy tail`, as a command: what it shows, chooses, follows, and keeps from the terminal."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.cli.tail import describe, printable, tail
from edgeproxy.logging import nginx_line
from edgeproxy.logging import select as choose
from tests.ledger.parts import PATIENCE_S, ROOT, record

COMMAND = [sys.executable, "-m", "edgeproxy", "tail"]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200e\u200f]")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def write(log: Path, *lines: bytes) -> None:
    with log.open("ab") as file:
        file.write(b"".join(lines))


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(tail, ["--no-follow", *map(str, arguments)], **options)


def seqs(result: Result) -> list[int]:
    assert result.exit_code == 0, result.output
    return [int(found) for found in re.findall(r"example\.test/(\d+)", result.output)]


# One line a request.


def test_a_request_is_one_aligned_line(log: Path) -> None:
    write(log, record(7, query="a=1"), record(12, status=404, cache=None, method="OPTIONS", duration_ms=12345.6))
    lines = run(log).output.splitlines()
    trace = f"{7:032x}"
    assert lines[0] == (
        f"05:06:07.089 200 HIT           1.25ms    785B 192.0.2.7       {trace} GET  example.test/7?a=1"
    )
    assert lines[1].startswith("05:06:07.089 404 -              12.3s    785B 192.0.2.7       ")
    assert lines[1].endswith(" OPTIONS example.test/12")


def test_a_request_that_went_wrong_says_where_and_why(log: Path) -> None:
    error = {"type": "worker_died", "message": "worker 1 (pid 7) died", "causes": []}
    write(log, record(7, status=None, cache=None, bytes_out=None, outcome="lost", stage="connect", error=error))
    line = run(log).output.rstrip("\n")
    assert "  - -" in line
    assert line.endswith("example.test/7 lost at connect: worker 1 (pid 7) died")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1500, "1.5K"), (150_000, "146K"), (5 << 20, "5.0M"), (3 << 30, "3.0G")],
)
def test_sizes_are_short(log: Path, size: int, text: str) -> None:
    write(log, record(7, bytes_out=size))
    assert f" {text} " in run(log).output


def test_the_last_ten_lines_are_shown_or_as_many_as_asked_for(log: Path) -> None:
    write(log, *(record(seq) for seq in range(30)))
    assert seqs(run(log)) == list(range(20, 30))
    assert seqs(run(log, "-n", 3)) == [27, 28, 29]
    assert seqs(run(log, "-n", 0)) == []
    assert seqs(run(log, "-n", 100)) == list(range(30))


def test_a_line_without_an_end_is_shown_as_it_is(log: Path) -> None:
    write(log, record(1), record(2)[:50])
    lines = run(log).output.splitlines()
    assert lines[1] == record(2)[:50].decode()


# Choosing.


@pytest.fixture
def mixed(log: Path) -> Path:
    write(
        log,
        record(1, status=200, cache="HIT", duration_ms=0.1),
        record(2, status=404, cache="MISS", duration_ms=150),
        record(3, status=502, cache="MISS", duration_ms=250, outcome="origin_error"),
        record(4, status=None, cache=None, duration_ms=9000, outcome="lost"),
        b"no record\n",
        record(5, status=304, cache="REVALIDATED", duration_ms=200, path="/img/a/5.png", host="example.test/5#"),
    )
    return log


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--status", "5xx"], [3]),
        (["--status", "404"], [2]),
        (["--status", "300-499"], [2, 5]),
        (["--status", "2xx", "--status", "5XX"], [1, 3]),
        (["--cache", "MISS"], [2, 3]),
        (["--cache", "hit", "--cache", "revalidated"], [1, 5]),
        (["--slower-than", "200ms"], [3, 4]),
        (["--slower-than", "1.5s"], [4]),
        (["--slower-than", "100us"], [2, 3, 4, 5]),
        (["--outcome", "lost"], [4]),
        (["--outcome", "ok", "--cache", "MISS"], [2]),
        (["--path", "/img/*"], [5]),
        (["--path", "*.png", "--path", "/[12]"], [1, 2, 5]),
        (["--path", "/IMG/*"], []),
        (["--trace-id", f"{3:032x}"], [3]),
        (["--trace-id", "0" * 31], [1, 2, 3, 4, 5]),
        (["--trace-id", "F"], []),
    ],
)
def test_options_choose_lines(mixed: Path, options: list[str], chosen: list[int]) -> None:
    assert seqs(run(mixed, *options)) == chosen


def test_the_last_lines_are_the_last_ones_that_fit(log: Path) -> None:
    write(log, record(0, status=500), *(record(seq) for seq in range(1, 2000)))
    assert seqs(run(log, "--status", "500")) == [0]
    assert seqs(run(log, "--path", "/1?", "-n", 2)) == [18, 19]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--status", "6xx"], "'6xx' is no status"),
        (["--status", "many"], "'many' is no status"),
        (["--slower-than", "200"], "'200' is no duration: a number with a unit"),
        (["--slower-than", "-1s"], "is no duration"),
        (["--cache", "WARM"], "'WARM' is not one of"),
        (["--outcome", "fine"], "'fine' is not one of"),
    ],
)
def test_what_makes_no_sense_is_said(mixed: Path, options: list[str], message: str) -> None:
    result = run(mixed, *options)
    assert result.exit_code == 2
    assert message in result.output


def test_json_gives_the_lines_as_they_are(mixed: Path) -> None:
    assert run(mixed, "--json").stdout_bytes == mixed.read_bytes()
    assert run(mixed, "--json", "--cache", "HIT").stdout_bytes == mixed.read_bytes().splitlines(keepends=True)[0]


def test_lines_in_nginx_format_are_shown_but_not_chosen_from(log: Path) -> None:
    write(log, nginx_line(record(1)), nginx_line(record(2)))
    assert run(log).stdout_bytes == log.read_bytes()
    result = run(log, "--status", "5xx")
    assert result.exit_code == 2
    assert 'is in Nginx\'s format; choosing lines needs log.format = "json"' in result.output


# What strangers wrote.


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\nb\rc", "a\\x0ab\\x0dc"),
        ("\u202eevil", "\\u202eevil"),
        ("\x9b31m", "\\x9b31m"),
        ("caf\u00e9 \u4e2d\u6587", "caf\u00e9 \u4e2d\u6587"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_as_an_escape(raw: str, shown: str) -> None:
    assert printable(raw) == shown


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(), st.text(), st.text(max_size=20))
def test_no_text_reaches_the_terminal_unescaped(path: str, host: str, message: str, cache: str) -> None:
    line = record(1, path=path, host=host, method=path, query=message, client=host, cache=cache, ts=message,
                  trace_id=path, outcome=cache, stage=host, error={"message": message})  # fmt: skip
    parsed = choose.parse(line)
    assert parsed
    assert describe(parsed, lambda text, **_style: text).isprintable()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: json.dumps(text).encode()))))
def test_whatever_stands_in_the_file_nothing_breaks(log: Path, junk: list[bytes]) -> None:
    log.write_bytes(b"".join(one + b"\n" for one in junk) + record(1))
    result = run(log, "-n", 1000)
    assert result.exit_code == 0
    assert not CONTROL.search(result.output.replace("\n", ""))
    assert result.output.count("\n") == log.read_bytes().count(b"\n")


@pytest.mark.parametrize("line", [b"[]\n", b"null\n", b"{}\n", b'{"ts":5}\n', b"\xff\xfe\n", b"\n", b'"' * 50 + b"\n"])
def test_lines_that_are_no_records_are_shown_as_they_are(log: Path, line: bytes) -> None:
    write(log, line, record(1))
    lines = run(log).output.splitlines()
    assert len(lines) == 2
    assert lines[0] == printable(line.rstrip(b"\n").decode("utf-8", "backslashreplace"))


# Terminals.


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--no-follow", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        env={**os.environ, "TERM": "xterm", **environment},
    )
    os.close(theirs)
    output = b""
    while select.select([ours], [], [], PATIENCE_S)[0]:
        try:
            output += os.read(ours, 65536)
        except OSError:  # the terminal's other end is gone
            break
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    return output.decode()


def test_a_terminal_gets_colours_and_a_pipe_does_not(log: Path) -> None:
    write(log, record(1, status=500), b"torn\n")
    coloured = on_a_terminal(log)
    assert "\x1b[31m\x1b[1m500\x1b[0m" in coloured
    assert "\x1b[2mtorn\x1b[0m" in coloured
    plain = run(log).output
    assert "\x1b" not in plain
    assert ANSI.sub("", coloured).replace("\r\n", "\n") == plain


def test_no_color_is_respected(log: Path) -> None:
    write(log, record(1))
    assert "\x1b" not in on_a_terminal(log, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(log, TERM="dumb")


def test_raw_lines_do_not_bring_control_characters_to_a_terminal(log: Path) -> None:
    write(log, b"\x1b[2J evil\n", record(1, path="/\u202e"))
    output = on_a_terminal("--json", log)
    assert not CONTROL.search(output.replace("\r\n", ""))
    assert "\\x1b[2J evil" in output


def test_a_terminal_without_unicode_gets_escapes(log: Path) -> None:
    write(log, record(1, path="/caf\u00e9"))
    done = subprocess.run(
        [*COMMAND, "--no-follow", str(log)], cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.endswith(b"/caf\\xe9\n")


# Following.


class Tail:
    """The command, following."""

    def __init__(self, *arguments: object, **options: Any) -> None:
        self.popen = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        self._lines = b""

    def reads(self, count: int) -> list[int]:
        """Wait for so many lines; their seqs."""
        assert self.popen.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        while self._lines.count(b"\n") < count:
            assert time.monotonic() < deadline, f"only got {self._lines!r}"
            if select.select([self.popen.stdout], [], [], 0.2)[0]:
                self._lines += os.read(self.popen.stdout.fileno(), 65536)
        lines, self._lines = self._lines.splitlines(keepends=True), b""
        return [int(line.rpartition(b"/")[2]) for line in lines]

    def close(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def following(log: Path) -> Iterator[Tail]:
    write(log, record(0))
    one = Tail(log)
    assert one.reads(1) == [0]
    yield one
    one.close()


def test_new_lines_are_shown_as_they_come(log: Path, following: Tail) -> None:
    write(log, record(1), record(2)[:20])
    assert following.reads(1) == [1]
    write(log, record(2)[20:])
    assert following.reads(1) == [2]


def test_it_follows_rotation_by_a_new_file_and_by_cutting_the_old_one(log: Path, following: Tail) -> None:
    old = log.rename(log.with_name("access.log.1"))
    write(old, record(1))
    assert following.reads(1) == [1]
    write(log, record(2), record(3))
    assert following.reads(2) == [2, 3]
    log.write_bytes(record(4))
    assert following.reads(1) == [4]


def test_it_waits_for_a_log_that_is_not_there_yet(log: Path) -> None:
    one = Tail(log)
    try:
        assert one.popen.stderr is not None
        assert b"is not there yet; waiting for it" in one.popen.stderr.readline()
        write(log, record(1))
        assert one.reads(1) == [1]
    finally:
        one.close()


def test_a_missing_log_is_an_error_when_nothing_is_followed(log: Path) -> None:
    result = run(log)
    assert result.exit_code == 1
    assert "there is no such file" in result.output


def test_a_reader_that_has_had_enough_is_no_error(log: Path) -> None:
    write(log, *(record(seq) for seq in range(5000)))
    done = subprocess.run(
        f"{' '.join(COMMAND)} --no-follow -n 5000 {log} | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_standard_input_can_be_read(log: Path) -> None:
    write(log, record(1), record(2, status=500))
    result = CliRunner().invoke(tail, ["-", "--status", "5xx"], input=log.read_bytes())
    assert seqs(result) == [2]


def test_standard_input_is_shown_as_it_comes() -> None:
    one = Tail("-", stdin=subprocess.PIPE)
    try:
        assert one.popen.stdin is not None
        for seq in (1, 2):
            one.popen.stdin.write(record(seq))
            one.popen.stdin.flush()
            assert one.reads(1) == [seq]
    finally:
        one.close()


# Which log.


def configuration(tmp_path: Path, access: str) -> Path:
    path = tmp_path / "edgeproxy.toml"
    path.write_text(
        f'[node]\nruntime_dir = "{tmp_path}/run"\n[log]\naccess = "{access}"\n'
        '[[origin]]\nname = "site"\nurls = ["http://127.0.0.1:1"]\n'
    )
    return path


def test_the_configuration_names_the_log(tmp_path: Path, log: Path) -> None:
    write(log, record(1))
    assert seqs(run("-c", configuration(tmp_path, str(log)))) == [1]


def test_a_log_on_standard_output_cant_be_followed(tmp_path: Path) -> None:
    result = run("-c", configuration(tmp_path, "-"))
    assert result.exit_code == 2
    assert "goes to standard output" in result.output


def test_without_a_node_and_a_name_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproxy.node import runtime

    monkeypatch.setattr(runtime, "SYSTEM_DIR", tmp_path)
    result = run()
    assert result.exit_code == 1
    assert "no node runs" in result.output
    assert "name the log file, or its configuration with -c" in result.output


def test_a_broken_configuration_is_said(tmp_path: Path) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_text("[log]\nacess = 1\n")
    result = run("-c", path)
    assert result.exit_code == 2
    assert "acess" in result.output


def test_a_running_node_names_its_log(tmp_path: Path, log: Path) -> None:
    """Its own word counts: the file may have been edited since."""
    from edgeproxy.node import Control, Description, RuntimeDir

    runtime = RuntimeDir(tmp_path / "run")
    runtime.prepare()
    lock = runtime.lock()
    control = Control.create(runtime.control)
    control.set_description(Description(access_log=str(log)))
    write(log, record(1))
    try:
        assert seqs(run("-c", configuration(tmp_path, "/elsewhere/access.log"))) == [1]
    finally:
        control.close()
        os.close(lock)
