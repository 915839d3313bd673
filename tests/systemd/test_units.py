"""The files under systemd/ fit the program, each other, and the README's steps."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from edgeproxy.config import Config
from tests.systemd.tools import needs

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = (FOLDER / "edgeproxy.service").read_text(encoding="utf-8")
LOGROTATE = (FOLDER / "edgeproxy.logrotate").read_text(encoding="utf-8")
PROGRAM = "/opt/edgeproxy/.venv/bin/edgeproxy"
SUPERVISOR_MARGIN_S = 2
"""What the supervisor adds to the drain time before it kills a worker that does not end."""


@pytest.fixture
def service() -> dict[str, list[str]]:
    """The [Service] section: each key with its values, since systemd lets a key stand more than once."""
    values: dict[str, list[str]] = defaultdict(list)
    section = UNIT.split("[Service]")[1].split("[Install]")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values[key].append(value)
    return values


def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    unit = tmp_path / "edgeproxy.service"
    unit.write_text(UNIT.replace(PROGRAM, sys.executable), encoding="utf-8")
    result = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in result.stderr.splitlines() if "edgeproxy" in line]
    assert complaints == []


def test_the_service_is_well_locked_in(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    unit = tmp_path / "edgeproxy.service"
    unit.write_text(UNIT, encoding="utf-8")
    result = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=25", str(unit)], capture_output=True, text=True, check=False
    )
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert result.returncode == 0, result.stdout


def test_it_reports_ready_by_itself_and_reloads_by_signal(service: dict[str, list[str]]) -> None:
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert service["ExecStart"] == [f"{PROGRAM} run -c /etc/edgeproxy/edgeproxy.toml"]
    assert service["ExecReload"] == ["/bin/sh -c 'kill -HUP $MAINPID'"]
    assert float(service["WatchdogSec"][0]) >= 10


def test_a_wrong_configuration_is_not_tried_again_and_again(service: dict[str, list[str]], tmp_path: Path) -> None:
    wrong = tmp_path / "edgeproxy.toml"
    wrong.write_text("nonsense = 1\n", encoding="utf-8")
    run = [sys.executable, "-m", "edgeproxy", "run", "-c", str(wrong)]
    ended = subprocess.run(run, capture_output=True, check=False, timeout=60)
    assert service["RestartPreventExitStatus"] == [str(ended.returncode)]


def test_the_toggles_file_is_the_one_that_the_node_watches(service: dict[str, list[str]]) -> None:
    assert service["EnvironmentFile"] == ["-/etc/edgeproxy/edgeproxy.env"]
    assert "EDGEPROXY_ENV_FILE=/etc/edgeproxy/edgeproxy.env" in service["Environment"]


def test_stopping_leaves_the_workers_their_whole_drain_time(service: dict[str, list[str]]) -> None:
    assert service["KillMode"] == ["mixed"]
    drain_s = Config().limits.drain_timeout
    assert float(service["TimeoutStopSec"][0]) > drain_s + SUPERVISOR_MARGIN_S + 10


def test_the_ledgers_outlive_the_service(service: dict[str, list[str]]) -> None:
    assert service["RuntimeDirectory"] == ["edgeproxy"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]


def test_there_are_descriptors_for_every_connection_and_its_origin(service: dict[str, list[str]]) -> None:
    assert int(service["LimitNOFILE"][0]) >= 4 * Config().limits.connections


def test_account_directories_and_rotation_speak_of_the_same_things(service: dict[str, list[str]]) -> None:
    account = service["User"][0]
    directory = f"/var/log/{service['LogsDirectory'][0]}"
    assert re.search(rf"^u {account} ", (FOLDER / "edgeproxy.sysusers.conf").read_text(), flags=re.MULTILINE)
    tmpfiles = (FOLDER / "edgeproxy.tmpfiles.conf").read_text()
    cache = f"/var/cache/{service['CacheDirectory'][0]}"
    made = set(re.findall(r"^d (\S+)", tmpfiles, re.MULTILINE))
    assert made == {f"/run/{service['RuntimeDirectory'][0]}", cache, directory}
    assert f"{directory}/*.log {{" in LOGROTATE
    assert f"su {account} {account}" in LOGROTATE


def test_account_and_directories_are_made_by_systemds_own_tools(tmp_path: Path) -> None:
    sysusers, tmpfiles = needs("systemd-sysusers"), needs("systemd-tmpfiles")
    root = f"--root={tmp_path}"
    made = subprocess.run(
        [sysusers, root, "--dry-run", str(FOLDER / "edgeproxy.sysusers.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" not in made.stderr:
        assert made.returncode == 0, made.stderr
        assert "edgeproxy" in made.stderr + made.stdout
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc" / "passwd").write_text("edgeproxy:x:0:0::/:/usr/sbin/nologin\n", encoding="utf-8")
    (tmp_path / "etc" / "group").write_text("edgeproxy:x:0:\n", encoding="utf-8")
    created = subprocess.run(
        [tmpfiles, root, "--create", str(FOLDER / "edgeproxy.tmpfiles.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Failed to parse" not in created.stderr
    assert "Unknown" not in created.stderr
    if created.returncode == 0:
        modes = {path: (tmp_path / path).stat().st_mode & 0o7777 for path in ("run/edgeproxy", "var/log/edgeproxy")}
        assert set(modes.values()) == {0o750}, modes
