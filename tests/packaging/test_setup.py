"""The make targets' helpers: which Python is taken, what is said when there is none, what apt is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND_PYTHON = ROOT / "scripts" / "find-python.sh"
APT_INSTALL = ROOT / "scripts" / "apt-install.sh"

NOT_SELECTED = "#!/bin/sh\necho 'pyenv: version is not installed' >&2\nexit 127\n"
"""What a pyenv shim does for a version that is not selected: it is on PATH and runs nothing."""
OLD = "#!/bin/sh\nexit 0\n"
"""A Python that is not new enough prints nothing when asked."""
GOOD = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'


class Machine:
    """A PATH of its own: the shell's tools, and whatever commands a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.home = folder / "home"
        self.home.mkdir()
        self.log = folder / "calls"
        for tool in ("env", "bash", "sh", "sed", "sort", "comm", "cat", "grep", "basename", "dirname"):
            path = next(Path(place) / tool for place in ("/usr/bin", "/bin") if (Path(place) / tool).exists())
            (self.bin / tool).symlink_to(path)

    def command(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", str(script), *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("name", ["python3.13", "python3.12", "python3.14", "python3"])
def test_a_python_is_found_under_any_of_its_names(machine: Machine, name: str) -> None:
    machine.command(name, GOOD)
    result = machine.run(FIND_PYTHON)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).samefile(sys.executable)


@pytest.mark.parametrize("script", [NOT_SELECTED, OLD], ids=["shim", "old"])
def test_one_that_is_on_path_but_does_not_serve_is_passed_over(machine: Machine, script: str) -> None:
    for name in ("python3.13", "python3.12", "python3.14"):
        machine.command(name, script)
    machine.command("python3", GOOD)
    assert machine.run(FIND_PYTHON).returncode == 0


def test_with_shims_only_the_versions_below_pyenv_are_tried(machine: Machine) -> None:
    machine.command("python3.13", NOT_SELECTED)
    installed = machine.home / ".pyenv" / "versions" / "3.13.0" / "bin"
    installed.mkdir(parents=True)
    (installed / "python3").write_text(GOOD, encoding="utf-8")
    (installed / "python3").chmod(0o755)
    assert machine.run(FIND_PYTHON).returncode == 0


def test_with_none_the_message_says_what_to_install(machine: Machine) -> None:
    machine.command("python3", OLD)
    result = machine.run(FIND_PYTHON)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "CPython 3.12 or newer" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr


def test_a_named_interpreter_is_taken_or_refused_but_never_replaced(machine: Machine) -> None:
    machine.command("python3", GOOD)
    old = machine.command("ancient", OLD)
    result = machine.run(FIND_PYTHON, PYTHON=str(old))
    assert result.returncode == 1
    assert f"PYTHON={old}" in result.stderr


def test_what_is_there_is_not_installed(machine: Machine) -> None:
    machine.command("wanted", OLD)
    result = machine.run(APT_INSTALL, "wanted:some-package", f"{machine.bin}/wanted:some-package")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_without_apt_the_message_names_the_missing_packages_only(machine: Machine) -> None:
    machine.command("wanted", OLD)
    result = machine.run(APT_INSTALL, "wanted:some-package", "absent:other-package", "/no/such/file:third-package")
    assert result.returncode == 1
    assert "Please install: other-package third-package" in result.stderr
    assert "some-package" not in result.stderr


def test_without_root_and_with_a_sudo_that_asks_the_message_has_the_command_to_run(machine: Machine) -> None:
    machine.command("apt-get", "#!/bin/sh\necho apt-get must not run >&2\n")
    machine.command("id", "#!/bin/sh\necho 1000\n")
    machine.command("sudo", "#!/bin/sh\nexit 1\n")
    result = machine.run(APT_INSTALL, "absent:other-package")
    assert result.returncode == 1
    assert "sudo apt-get install --no-install-recommends other-package" in result.stderr
    assert "must not run" not in result.stderr


def test_without_root_a_sudo_that_asks_nothing_is_used(machine: Machine) -> None:
    machine.command("apt-get", OLD)
    machine.command("id", "#!/bin/sh\necho 1000\n")
    machine.command("sudo", f'#!/bin/sh\necho "$@" >> {machine.log}\n')
    assert machine.run(APT_INSTALL, "absent:other-package").returncode == 0
    assert machine.log.read_text(encoding="utf-8").splitlines()[-1].endswith("apt-install.sh absent:other-package")


@pytest.mark.parametrize("target", ["setup", "run", "test", "lint", "format", "bench", "reference", "lock", "clean"])
def test_make_alone_lists_each_target_with_a_sentence(target: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    listed = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    lines = [line.split(maxsplit=2) for line in listed.splitlines()]
    assert target in {name for make, name, text in lines if make == "make" and text}
