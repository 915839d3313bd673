"""The environment file: the tracing toggle's place, read by the node, edited by `edgeproxy trace`, known to systemd.

May know: the file's notation, which python-dotenv and systemd's EnvironmentFile share, and where the file is. Must not:
know what a variable is for.
"""

import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

from edgeproxy.config.errors import HIDDEN, EnvFileError, shown
from edgeproxy.config.variables import VARIABLES

DEFAULT_ENV_FILE = Path("conf/edgeproxy.env")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"(?P<export>export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
_NEWLINE = re.compile(r"\r\n|\n|\r")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:,=@%+-]*")
_NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class _Entry:
    """A stretch of the file: an assignment, or what stands between two (name is None)."""

    text: str
    line: int
    name: str | None = None
    value: str = ""


def env_file_path(config_path: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the environment file is, or would be.

    That is EDGEPROXY_ENV_FILE, else edgeproxy.env beside the configuration's file if it is there, else
    conf/edgeproxy.env in the working directory.
    """
    if named := environ.get("EDGEPROXY_ENV_FILE"):
        return Path(named)
    beside = None if config_path is None else config_path.with_name(DEFAULT_ENV_FILE.name)
    return beside if beside is not None and beside.is_file() else DEFAULT_ENV_FILE


def read_env_file(path: Path) -> dict[str, str]:
    """The variables that the file sets; none if there is no such file. The last of several lines for one name counts.

    Raises EnvFileError for a line that is no assignment, or whose value the node knows to be wrong.
    """
    values = {}
    for entry in _parse(path, _read(path) or ""):
        if entry.name is None:
            continue
        variable = VARIABLES.get(entry.name)
        if variable is not None and (reason := variable.problem(entry.value)) is not None:
            wrong = f"{entry.name} = {variable.shown(entry.value)}: {reason}"
            raise EnvFileError("env_file_value", path, wrong, line=entry.line)
        values[entry.name] = entry.value
    return values


def set_env_value(path: Path, key: str, value: str) -> None:
    """Set one variable in the file and leave the rest as it is: at once and whole, or not at all.

    Readers see the old file or the new one. Its mode and owner stay; if it is missing it is created. Two edits at once
    wait for each other. Raises EnvFileError, with the file untouched, if it can't be done or the file is broken.
    """
    if not _NAME.fullmatch(key) or not value.isprintable():
        allowed = "a name of letters, digits and underscores, and a value on one line"
        raise EnvFileError("env_file_value", path, f"{shown(f'{key}={value}')}: expected {allowed}")
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    try:
        with _locked(target.parent):
            _require_regular(target)
            _replace(target, _edited(path, _read(path) or "", key, value))
    except OSError as error:
        raise EnvFileError("env_file_unwritable", path, f"can't be written: {error.strerror or error}") from error


def _read(path: Path) -> str | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvFileError("env_file_unreadable", path, f"can't be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(_NEWLINE.findall(data[: error.start].decode())) + 1
        raise EnvFileError("env_file_syntax", path, "expected text in UTF-8", line=line) from None


def _parse(path: Path, text: str) -> Iterator[_Entry]:
    offset = 0
    for binding in parse_stream(io.StringIO(text, newline="")):
        raw = binding.original.string
        content = raw.strip()
        # The parser's own line is that of the blank lines before.
        line = len(_NEWLINE.findall(text, 0, offset + len(raw) - len(raw.lstrip()))) + 1
        offset += len(raw)
        if not content or content.startswith("#") or (content.startswith(";") and not _NEWLINE.search(content)):
            yield _Entry(raw, line)
            continue
        found = _ASSIGNMENT.match(content)
        if binding.error or found is None or binding.value is None or "\0" in content:
            expected = "expected NAME=value, with quotes closed, or a comment that begins with #"
            raise EnvFileError("env_file_syntax", path, f"{_shown(content)}: {expected}", line=line)
        if content.endswith("\\") and content[found.end()] not in "\"'":
            expected = "expected the value on one line: systemd would join the next one to it"
            raise EnvFileError("env_file_syntax", path, f"{_shown(content)}: {expected}", line=line)
        yield _Entry(raw, line, found["name"], binding.value)


def _shown(content: str) -> str:
    """A broken line as a message may have it."""
    secret = any(variable.secret and name in content for name, variable in VARIABLES.items())
    return HIDDEN if secret else shown(content)


def _edited(path: Path, text: str, name: str, value: str) -> str:
    entries = list(_parse(path, text))
    newline = "\r\n" if "\r\n" in text else "\n"
    assignment = f"{name}={_quoted(value)}"
    last = max((index for index, entry in enumerate(entries) if entry.name == name), default=None)
    if last is None:
        end = "" if not text or text.endswith(("\n", "\r")) else newline
        return f"{text}{end}{assignment}{newline}"
    raw = entries[last].text
    before = raw[: len(raw) - len(raw.lstrip())]
    found = _ASSIGNMENT.match(raw, len(before))
    export = (found and found["export"]) or ""
    after = raw[len(raw.rstrip("\r\n")) :] or newline
    rest = [entry.text for entry in entries]
    rest[last] = f"{before}{export}{assignment}{after}"
    return "".join(rest)


def _quoted(value: str) -> str:
    """In double quotes where it can't stand bare, with the two escapes that python-dotenv and systemd share."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the directory's lock: the file itself is replaced, so a lock on it would be on something that is gone."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        with suppress(OSError):  # the edit stands; a file system that can't sync a directory has its own way to keep it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_regular(target: Path) -> None:
    if target.exists() and not target.is_file():
        raise OSError("it is no regular file")


def _replace(target: Path, text: str) -> None:
    try:
        old = target.stat()
    except FileNotFoundError:
        old = None
    new = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _NEW_FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if old is not None:
                _keep_owner_and_mode(descriptor, old)
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        new.replace(target)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _keep_owner_and_mode(descriptor: int, old: os.stat_result) -> None:
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
