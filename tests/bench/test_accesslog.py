import threading
from pathlib import Path

from bench.accesslog import AccessLog


def test_only_whole_lines_count_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path)
    assert log.count() == 0
    with path.open("a") as file:
        file.write("one\ntwo\nthr")
        file.flush()
        assert log.count() == 2
        file.write("ee\n")
        file.flush()
        assert log.count() == 3


def test_an_emptied_log_counts_from_nothing_while_its_writer_appends(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path)
    with path.open("a") as file:
        file.write("one\n")
        file.flush()
        assert log.count() == 1
        log.empty()
        file.write("two\n")
        file.flush()
        assert log.count() == 1
    assert path.read_text() == "two\n"


def test_it_waits_for_lines_that_come_late(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.touch()
    late = threading.Timer(0.2, lambda: path.write_text("one\ntwo\n"))
    late.start()
    log = AccessLog(path)
    assert 0.1 < log.reached(2) < 5
    late.join()
    assert log.settle() == 2
