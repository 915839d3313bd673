"""Programs that end with this process, however it ends.

A shell starts them and waits for its input to end: that is a pipe from here, which the kernel closes when this process
is gone. Nothing is known here of what the programs do.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_SCRIPT = """
signal=$1; shift
for line in "$@"; do (eval "exec $line") & pids="$pids $!"; done
read -r _
kill -s "$signal" $pids
wait
"""
_PATIENCE_S = 15.0


@contextmanager
def leashed(*lines: str, log: Path, end: str = "TERM", environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Run these shell command lines, one program each, their output in a file; at last they get the signal `end`."""
    with log.open("ab") as output:
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "sh", end, *lines],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(environ),
            start_new_session=True,  # Ctrl-C is this process's to act on
        )
    try:
        yield
    finally:
        if shell.stdin:
            shell.stdin.close()
        try:
            shell.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
