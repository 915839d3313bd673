"""Real logrotate, with the file that operators install, turns over the log of a real node."""

import grp
import os
import pwd
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support import Node, Origin, until
from tests.systemd.tools import needs

CONFIGURATION = (Path(__file__).parents[2] / "systemd" / "edgeproxy.logrotate").read_text(encoding="utf-8")


class Logrotate:
    """logrotate for one node: the installed file, pointed at the node's log; `systemctl kill` reaches the node."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._program = needs("logrotate")
        self._folder = folder
        self.calls = folder / "systemctl-calls"
        account = f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
        text = CONFIGURATION.replace("/var/log/edgeproxy", str(node.folder)).replace("edgeproxy edgeproxy", account)
        self._file = folder / "logrotate.conf"
        self._file.write_text(text.replace("/*.log {", "/access.log {"), encoding="utf-8")
        self._file.chmod(0o644)
        # There is no service manager in a test: what the script asks of it is written down and done.
        systemctl = folder / "bin" / "systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text(f'#!/bin/sh\necho "$@" >> {self.calls}\nkill -s USR1 {node.supervisor_pid}\n')
        systemctl.chmod(0o755)

    def __call__(self) -> None:
        done = subprocess.run(
            [self._program, "--force", "--state", str(self._folder / "state"), str(self._file)],
            env={**os.environ, "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def rotate(node: Node, tmp_path: Path) -> Logrotate:
    return Logrotate(node, tmp_path)


def test_every_request_has_its_line_in_one_of_the_files(node: Node, origin: Origin, rotate: Logrotate) -> None:
    sent = []
    with httpx.Client(base_url=node.url) as client:
        for turn in range(3):
            sent += [client.get(f"/before/{turn}/{n}").headers["x-trace-id"] for n in range(20)]
            until(node.lines, "a line: an empty file is not turned over")
            rotate()
    sent.append(httpx.get(f"{node.url}/after").headers["x-trace-id"])

    def logged() -> list[str]:
        lines = []
        for path in node.folder.glob("access.log*"):
            reader = ["zcat", "-f", str(path)]
            lines += subprocess.run(reader, capture_output=True, check=True, timeout=60).stdout.splitlines()
        return sorted(line.split(b'"trace_id":"')[1][:32].decode() for line in lines)

    until(lambda: len(logged()) >= len(sent), "all lines")
    assert logged() == sorted(sent)
    assert (node.folder / "access.log.1").exists()
    assert (node.folder / "access.log.3.gz").exists()


def test_the_new_file_is_the_nodes_at_once(node: Node, origin: Origin, rotate: Logrotate) -> None:
    httpx.get(node.url)
    node.log_lines(1)
    rotate()
    httpx.get(node.url)
    node.log_lines(1)
    assert node.access_log.stat().st_mode & 0o777 == 0o640


def test_the_signal_goes_to_the_main_process_of_the_service(node: Node, origin: Origin, rotate: Logrotate) -> None:
    httpx.get(node.url)
    node.log_lines(1)
    rotate()
    assert rotate.calls.read_text().split() == ["kill", "--kill-whom=main", "--signal=SIGUSR1", "edgeproxy.service"]
