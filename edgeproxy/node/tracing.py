"""The tracing settings at run time: a file that the supervisor writes, and that everyone else reads when the control
page's epoch moves.

Rules that keep it whole:
- one writer, the supervisor; the file of an epoch is complete before the page says that epoch;
- it is never changed: other settings are another epoch's, in a file of another name;
- the file of the epoch before is removed after that, so who finds none reads the epoch again.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from edgeproxy.config import TracingSettings
from edgeproxy.node.control import Control
from edgeproxy.node.errors import ControlPageError, RuntimeDirError
from edgeproxy.node.runtime import RuntimeDir

_TRIES = 100


def put_settings(runtime: RuntimeDir, control: Control, settings: TracingSettings) -> int:
    """Put up other settings, and return their epoch. Raises RuntimeDirError, with nothing changed, when their file
    can't be written.
    """
    path = runtime.tracing(control.epoch + 1)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(settings.to_json())
    except OSError as error:
        raise RuntimeDirError(f"{path} can't be written: {error.strerror}") from error
    epoch = control.set_tracing(settings)
    remove_settings(runtime, but=path)
    return epoch


def remove_settings(runtime: RuntimeDir, but: Path | None = None) -> None:
    """Remove the files of all epochs but one, where they can be."""
    for other in runtime.path.glob("tracing-*.json"):
        if other != but:
            with contextlib.suppress(OSError):
                other.unlink()


def read_settings(runtime: RuntimeDir, control: Control) -> tuple[int, TracingSettings]:
    """The settings that hold, and their epoch. Raises ControlPageError when their file is missing or is none."""
    for _ in range(_TRIES):
        epoch = control.epoch
        try:
            data = runtime.tracing(epoch).read_bytes()
        except FileNotFoundError:
            continue  # there are newer ones by now
        except OSError as error:
            raise ControlPageError(f"{runtime.tracing(epoch)} can't be read: {error.strerror}") from error
        try:
            return epoch, TracingSettings.from_json(data)
        except msgspec.MsgspecError as error:
            raise ControlPageError(f"{runtime.tracing(epoch)} holds no tracing settings: {error}") from error
    raise ControlPageError(f"{runtime.tracing(control.epoch)} is missing: the tracing settings can't be read")
