"""Stock mitmdump with the addons of `edgeproxy.addons`, as its users start it.

    with Mitmdump(origin.url) as mitmdump:
        httpx.get(mitmdump.url)
        (line,) = mitmdump.log_lines(1)

Ready when the context is entered. `scripts` are names of the package's own scripts, or paths. Configuration tables go
in as keywords, as with `Node`.
"""

import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support import Client, Node, Record, until

START_S = 60.0
STOP_S = 20.0
_LISTENING = re.compile(rb"listening at (?:\S+ and )?(?:http://)?127\.0\.0\.1:(\d+)")
_PROGRAM = str(Path(sys.executable).with_name("mitmdump"))


def own_script(name: str) -> str:
    """The path of one of the package's scripts. Its users find it out by `python -m edgeproxy.addons`."""
    package = importlib.util.find_spec("edgeproxy.addons")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).with_name(f"{name}.py"))


class Mitmdump:
    """A process, and its files; a context manager."""

    def __init__(
        self,
        *origins: str,
        scripts: Sequence[str | Path] = ("all",),
        mode: str = "",
        options: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        configured: bool = True,
        **tables: Any,
    ) -> None:
        """Prepare one in front of an origin with these urls.

        `mode` is mitmproxy's, by default a reverse proxy to the first url; `options` are mitmproxy's; without
        `configured` it is not told of any configuration.
        """
        self._paper = Node(*origins, **tables)  # never started: its folder and configuration are what is needed of it
        self.access_log = self._paper.folder / "mitmdump.log"
        self.confdir = self._paper.folder / "mitmproxy"
        given = {
            "confdir": str(self.confdir),
            "edge_access_log": str(self.access_log),
            "flow_detail": "0",
            **({"edge_config": str(self._paper.config_file)} if configured else {}),
            **(options or {}),
        }
        paths = [str(one) if isinstance(one, Path) else own_script(one) for one in scripts]
        self._command = [
            *(_PROGRAM, "--mode", mode or f"reverse:{origins[0]}", "--listen-host", "127.0.0.1", "--listen-port", "0"),
            *(part for path in paths for part in ("-s", path)),
            *(part for name, value in given.items() if value for part in ("--set", f"{name}={value}")),
        ]
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.url = ""

    @property
    def folder(self) -> Path:
        """Where its files are, and a test's own may be."""
        return self._paper.folder

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self._paper.config_file

    def __enter__(self) -> Self:
        with self._paper.stderr_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environ
            )
        try:
            self.port = until(self._listens, "mitmdump to listen", timeout=START_S)
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def _listens(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, self.output
        found = _LISTENING.search(self._paper.stderr_file.read_bytes())
        return int(found[1]) if found else 0

    def fails(self) -> tuple[int, str]:
        """Run it where it is not going to come up: its exit code, and what it said."""
        done = subprocess.run(
            self._command, capture_output=True, text=True, env=self._environ, timeout=START_S, check=False
        )
        self._paper.__exit__()
        return done.returncode, done.stdout + done.stderr

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_S)

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                self.stop()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"mitmdump did not end:\n{self.output}") from None
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._paper.__exit__()

    @property
    def output(self) -> str:
        """What it wrote to standard output and error."""
        return self._paper.stderr

    # --- what it wrote

    def lines(self) -> list[Record]:
        """The access log's lines so far."""
        if not self.access_log.exists():
            return []
        return [json.loads(line) for line in self.access_log.read_bytes().split(b"\n")[:-1]]

    def log_lines(self, count: int) -> list[Record]:
        """Wait until there are `count` lines; more than that is a failure."""
        found = until(lambda: got if len(got := self.lines()) >= count else [], f"{count} log lines")
        assert len(found) == count, [(line["method"], line["path"], line["outcome"]) for line in found]
        return found

    def lines_of(self, path: str, count: int = 1) -> list[Record]:
        """Wait for that many lines of requests for a path; more are a failure."""

        def found() -> list[Record]:
            lines = [line for line in self.lines() if line["path"] == path]
            return lines if len(lines) >= count else []

        lines = until(found, f"{count} lines of {path}")
        assert len(lines) == count, [(line["method"], line["outcome"]) for line in lines]
        return lines

    # --- its clients

    def connect(self) -> Client:
        """A raw client's connection."""
        return Client(self.port)

    def get(self, path: str, *fields: str, method: str = "GET", body: bytes = b"") -> Any:
        """One request on a connection of its own; the response."""
        with self.connect() as client:
            return client.get(path, *fields, method=method, body=body)

    def over_tls(self, *, http2: bool = False) -> httpx.Client:
        """An httpx client that speaks TLS, and no other version of HTTP than that."""
        authority = until(lambda: next(self.confdir.glob("mitmproxy-ca-cert.pem"), None), "mitmproxy's CA")
        trusted = _OneProtocol(ssl.PROTOCOL_TLS_CLIENT)
        trusted.load_verify_locations(authority)
        trusted.wanted = "h2" if http2 else "http/1.1"
        url = f"https://localhost:{self.port}"
        return httpx.Client(base_url=url, verify=trusted, trust_env=False, http1=not http2, http2=http2, timeout=20)


class _OneProtocol(ssl.SSLContext):
    """Offers one protocol, whatever httpx would: that has HTTP/1.1 come first, and mitmproxy takes the first."""

    wanted = ""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        del alpn_protocols
        super().set_alpn_protocols([self.wanted])
