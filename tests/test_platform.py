"""edgeproxy says in one sentence where it runs, before it imports anything that only runs there."""

import subprocess
import sys

import pytest

from edgeproxy.platform import require_linux


def test_linux_is_fine() -> None:
    require_linux("linux")


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14", "cygwin"])
def test_elsewhere_it_stops_with_a_message_that_names_the_platform_and_the_way_out(platform: str) -> None:
    with pytest.raises(SystemExit) as stop:
        require_linux(platform)
    message = str(stop.value)
    assert "Linux only" in message
    assert repr(platform) in message
    assert "virtual machine or container" in message


@pytest.mark.parametrize("entry", ["import edgeproxy.__main__", "from edgeproxy.cli import main; main(['demo'])"])
def test_the_command_stops_there_with_that_message_alone(entry: str) -> None:
    # uvloop cannot be imported on such a machine: the message has to come first.
    pretend = f"import sys; sys.platform = 'darwin'; sys.modules['uvloop'] = None; {entry}"
    result = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("edgeproxy runs on Linux only, not on 'darwin'")
    assert "Traceback" not in result.stderr
