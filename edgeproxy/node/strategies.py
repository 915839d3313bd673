"""Remote sampling strategies: fetched by the scribe, handed on in a file, taken into the settings by the supervisor.

Neither workers nor supervisor do network I/O for them. The scribe's thread polls, and writes down the last good answer
beside what has gone wrong since; the file stays when the scribe, or the node, is started anew. How they are decided by
is in `tracing.remote`.
"""

import contextlib
import os
import threading
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

import edgeproxy
from edgeproxy.node.control import Control
from edgeproxy.node.errors import ControlPageError
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.tracing import read_settings
from edgeproxy.tracing.remote import StrategyError, parse

TIMEOUT_S = 5.0
"""How long an answer may take."""
ANSWER_BYTES = 1024 * 1024
_PIECE_BYTES = 65536
LOOK_S = 0.25
"""How often the thread looks whether url or interval have changed."""

_log = structlog.get_logger()


class RemoteState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a url's strategies."""

    url: str = ""
    strategies: str = ""
    """The last good answer, JSON; empty if there has been none."""
    fetched: str = ""
    """When that was confirmed last."""
    etag: str = ""
    error: str = ""
    """What the last attempt came to; empty if it was good."""
    failing_since: str = ""


def read_state(path: Path) -> RemoteState:
    """What the file says; nothing, where there is none or it can't be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RemoteState)
    except (OSError, msgspec.MsgspecError):
        return RemoteState()


def strategies_of(path: Path, url: str) -> str:
    """The last good answer of this url, JSON; empty if there is none."""
    state = read_state(path)
    return state.strategies if url and state.url == url else ""


class StrategyPoller:
    """The scribe's thread: polls whatever url the settings name, for as long as they do. A context manager."""

    def __init__(self, runtime: RuntimeDir) -> None:
        """Poll for the node on that directory, once entered."""
        self._runtime = runtime
        self._file = runtime.strategies
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="strategies", daemon=True)
        self._failing = False

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; an answer that is under way is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            with contextlib.closing(Control.open(self._runtime.control)) as control:
                self._follow(control)
        except (OSError, ControlPageError) as error:
            _log.error("strategies_not_polled", error=str(error))

    def _follow(self, control: Control) -> None:
        epoch, url, poll_s, due = 0, "", 0.0, 0.0
        while not self._stopping.wait(min(LOOK_S, max(0.0, due - time.monotonic())) if url else LOOK_S):
            if control.epoch != epoch:
                try:
                    epoch, settings = read_settings(self._runtime, control)
                except ControlPageError:
                    continue  # said by those who can't do without
                wanted = settings.sampling.remote_url if settings.enabled else ""
                if (wanted, settings.sampling.remote_poll) != (url, poll_s):
                    url, poll_s, due = wanted, settings.sampling.remote_poll, 0.0
            if url and time.monotonic() >= due:
                self._poll(url)
                due = time.monotonic() + poll_s

    def _poll(self, url: str) -> None:
        known = read_state(self._file)
        if known.url != url:
            known = RemoteState(url=url)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            answer = fetch(url, known.etag)
            if answer is not None:
                parse(answer[0])
        except StrategyError as error:
            self._note(
                msgspec.structs.replace(known, error=str(error), failing_since=known.failing_since or now), failed=True
            )
            return
        strategies, etag = answer or (known.strategies, known.etag)
        self._note(RemoteState(url=url, strategies=strategies, etag=etag, fetched=now), failed=False)

    def _note(self, state: RemoteState, *, failed: bool) -> None:
        """Write it down, and say it when it is news."""
        temporary = self._file.with_name(f".{self._file.name}-{os.getpid()}")
        try:
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(state))
            temporary.rename(self._file)
        except OSError as error:
            failed, state = True, msgspec.structs.replace(state, error=f"{self._file}: {error.strerror}")
        if failed and not self._failing:
            kept = "the last good ones" if state.strategies else "tracing.sampler"
            _log.warning("strategies_failed", url=state.url, error=state.error, in_force=kept)
        elif self._failing and not failed:
            _log.info("strategies_recovered", url=state.url)
        self._failing = failed


def fetch(url: str, etag: str = "", timeout_s: float = TIMEOUT_S) -> tuple[str, str] | None:
    """What is there, and its entity tag; None where that is still the one of `etag`. Raises StrategyError."""
    # Imported by who polls, which few nodes do.
    from http.client import HTTPException  # noqa: PLC0415
    from urllib.error import HTTPError  # noqa: PLC0415
    from urllib.request import ProxyHandler, Request, build_opener  # noqa: PLC0415

    headers = {"Accept": "application/json", "User-Agent": f"edgeproxy/{edgeproxy.__version__}"}
    if etag:
        headers["If-None-Match"] = etag
    deadline = time.monotonic() + timeout_s
    body = b""
    try:
        # As for exports, proxies that the environment names are not used.
        opener = build_opener(ProxyHandler({}))
        with opener.open(Request(url, headers=headers), timeout=timeout_s) as response:  # noqa: S310  the url is checked
            while len(body) <= ANSWER_BYTES and (piece := response.read1(_PIECE_BYTES)):
                body += piece
                if time.monotonic() > deadline:  # the socket's own timeout begins anew with each byte
                    raise StrategyError(f"it is not done with its answer after {timeout_s:g} s")
            tag = response.headers.get("ETag", "")
    except HTTPError as error:
        if error.code == HTTPStatus.NOT_MODIFIED and etag:
            return None
        raise StrategyError(f"it answers {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise StrategyError(str(getattr(error, "reason", "") or error) or type(error).__name__) from error
    if len(body) > ANSWER_BYTES:
        raise StrategyError(f"the answer is longer than {ANSWER_BYTES} bytes")
    try:
        return body.decode(), tag
    except UnicodeDecodeError as error:
        raise StrategyError("no JSON: it is not UTF-8") from error
