"""The runtime directory: which one it is, what lies in it, and whether a supervisor holds it.

A node's processes and the commands that talk to it meet here and nowhere else, so both sides find it by the same rules
from the same configuration. This module knows names of files; what is in them is their own modules' business.
"""

import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from edgeproxy.node.errors import AlreadyRunningError, RuntimeDirError
from edgeproxy.node.locks import take_lock

SYSTEM_DIR = Path("/run/edgeproxy")
LOCK_PATIENCE_S = 1.0
"""How long `lock` keeps trying: a command that asks `is_held` has the lock for some microseconds."""


class RuntimeDir:
    """A node's runtime directory and the paths in it."""

    def __init__(self, path: Path) -> None:
        """Refer to `path`; nothing is made or checked yet."""
        self.path = path
        self.control = path / "control"
        self.lock_file = path / "supervisor.lock"
        self.admin_address = path / "admin.addr"
        """Where the admin API listens, as bound; the scribe writes it."""
        self.strategies = path / "sampling" / "remote.json"
        """The last good remote sampling strategies; the scribe writes them. In a directory that is watched."""

    @classmethod
    def resolve(cls, configured: str, environ: Mapping[str, str]) -> "RuntimeDir":
        """Find the directory: `node.runtime_dir` where it is set, else the first that this user can have.

        The order is /run/edgeproxy (root, or who may write there), $XDG_RUNTIME_DIR/edgeproxy, /dev/shm/edgeproxy-UID.
        """
        if configured:
            return cls(Path(configured).absolute())
        if os.geteuid() == 0 or os.access(SYSTEM_DIR, os.W_OK):
            return cls(SYSTEM_DIR)
        if session := environ.get("XDG_RUNTIME_DIR"):
            return cls(Path(session) / "edgeproxy")
        return cls(Path(f"/dev/shm/edgeproxy-{os.geteuid()}"))  # noqa: S108  `prepare` refuses a directory that is another's

    def config(self, generation: int) -> Path:
        """The effective configuration of a generation, as the workers read it."""
        return self.path / f"config-{generation}.json"

    def tracing(self, epoch: int) -> Path:
        """The tracing settings of an epoch of the control page, as workers and scribe read them."""
        return self.path / f"tracing-{epoch}.json"

    def prepare(self) -> None:
        """Make the directory (0700) where it is missing.

        Raises RuntimeDirError when it can't be made, can't be written to or is another user's.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.path.lstat()
        except OSError as error:
            raise RuntimeDirError(
                f"runtime directory {self.path} can't be made: {error.strerror}; set node.runtime_dir to a directory "
                "that this user may write to"
            ) from error
        if stat.S_ISLNK(status.st_mode) and not self._is_own(status):
            raise RuntimeDirError(
                f"runtime directory {self.path} is another user's symbolic link; set node.runtime_dir"
            )
        status = self.path.stat()
        if not self._is_own(status):
            raise RuntimeDirError(f"runtime directory {self.path} belongs to uid {status.st_uid}; set node.runtime_dir")
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise RuntimeDirError(f"runtime directory {self.path} can't be written to; set node.runtime_dir")

    @staticmethod
    def _is_own(status: os.stat_result) -> bool:
        return os.geteuid() == 0 or status.st_uid in (0, os.geteuid())

    def lock(self) -> int:
        """Take the directory for one supervisor; the lock ends with the descriptor that is returned.

        Raises AlreadyRunningError when another supervisor has it.
        """
        try:
            fd = take_lock(self.lock_file, LOCK_PATIENCE_S)
        except OSError as error:
            raise RuntimeDirError(f"{self.lock_file} can't be opened: {error.strerror}") from error
        if fd is None:
            raise AlreadyRunningError(
                f"another supervisor runs on {self.path}; stop it, or give this node its own node.runtime_dir"
            )
        return fd

    def is_held(self) -> bool:
        """Say whether a supervisor runs here, without disturbing it."""
        try:
            fd = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False
