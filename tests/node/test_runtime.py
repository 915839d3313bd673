import os
from pathlib import Path

import pytest

from edgeproxy.node import AlreadyRunningError, RuntimeDir, RuntimeDirError
from edgeproxy.node import runtime as module


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> int:
    """This process as one that is not root and may not write to /run/edgeproxy."""
    monkeypatch.setattr(module.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(module, "SYSTEM_DIR", Path("/proc/edgeproxy"))
    return 4711


def test_a_configured_directory_wins(nobody: int) -> None:
    assert RuntimeDir.resolve("/srv/edge", {"XDG_RUNTIME_DIR": "/run/user/1"}).path == Path("/srv/edge")


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RuntimeDir.resolve("run", {}).path == tmp_path / "run"


def test_root_has_the_systems_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    assert RuntimeDir.resolve("", {"XDG_RUNTIME_DIR": "/run/user/0"}).path == Path("/run/edgeproxy")


def test_so_has_whoever_may_write_there(nobody: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYSTEM_DIR", tmp_path)
    assert RuntimeDir.resolve("", {"XDG_RUNTIME_DIR": "/run/user/1"}).path == tmp_path


def test_others_have_their_sessions_directory(nobody: int) -> None:
    assert RuntimeDir.resolve("", {"XDG_RUNTIME_DIR": "/run/user/1"}).path == Path("/run/user/1/edgeproxy")


def test_without_a_session_it_is_shared_memory(nobody: int) -> None:
    assert RuntimeDir.resolve("", {}).path == Path("/dev/shm/edgeproxy-4711")


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    runtime = RuntimeDir(tmp_path / "a" / "b")
    runtime.prepare()
    runtime.prepare()
    assert runtime.path.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeDirError, match=r"file/run can't be made: Not a directory.*node\.runtime_dir"):
        RuntimeDir(tmp_path / "file" / "run").prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_another_users_directory_is_refused(tmp_path: Path, nobody: int) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(RuntimeDirError, match="belongs to uid 12345"):
        RuntimeDir(tmp_path).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link away")
def test_another_users_link_is_refused(tmp_path: Path, nobody: int) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    os.lchown(link, 12345, 12345)
    with pytest.raises(RuntimeDirError, match="another user's symbolic link"):
        RuntimeDir(link).prepare()


def test_one_supervisor_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE_S", 0.05)
    runtime = RuntimeDir(tmp_path)
    held = runtime.lock()
    with pytest.raises(AlreadyRunningError, match=str(tmp_path)):
        runtime.lock()
    os.close(held)
    os.close(runtime.lock())


def test_whether_one_runs_can_be_asked_any_time(tmp_path: Path) -> None:
    runtime = RuntimeDir(tmp_path)
    assert not runtime.is_held()
    held = runtime.lock()
    assert runtime.is_held()
    assert runtime.is_held()
    os.close(held)
    assert not runtime.is_held()
