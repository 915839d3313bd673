"""Nodes with scripts: a script is text in its test, and each answer is compared with its access-log line.

    with Site(SCRIPT) as site, site.watched():
        answer = site.get("/a")
    # on leaving: one line for each request, with the status and the length that the client got

A test module that has a `SCRIPT` (and `TABLES`, for the rest of the configuration) gets the fixture `site` from
conftest: one node for the module, watched for each test.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Self
from urllib.parse import quote

from mitmproxy import http

from edgeproxy.scripting.messages import Came, client_of, flow_of
from tests.proxy.builders import an_exchange
from tests.support import Client, Node, Origin, Record, Response, request, until

DOES = '''
    """Does in each hook what the request tells it to (`do`): code in the fields X-Do-REQUESTHEADERS and so on."""

    import asyncio
    import functools
    import logging
    import sys
    import threading
    import time
    import weakref
    from textwrap import indent
    from urllib.parse import unquote

    from mitmproxy import ctx, flow as flows, http
    from opentelemetry import trace


    @functools.cache
    def event(name):
        """One that all requests know."""
        return asyncio.Event()


    class Does:
        edge_filter = "~hq ^x-do-"
        told = weakref.WeakKeyDictionary()

        def _do(self, hook, flow):
            if flow not in self.told:
                fields = [(name.lower(), code) for name, code in flow.request.headers.items()]
                self.told[flow] = {name[5:]: unquote(code) for name, code in fields if name.startswith("x-do-")}
            code = self.told[flow].get(hook, "")
            edge = flow.metadata["edge"]
            values = {**globals(), "flow": flow, "edge": edge, "log": edge["log"], "request": flow.request}
            values["response"] = flow.response
            exec(f"{'async ' * ('await ' in code)}def done():\\n pass\\n{indent(code, ' ')}", values)
            return values.pop("done")()  # else it and its globals would know each other

        def requestheaders(self, flow): return self._do("requestheaders", flow)
        def request(self, flow): return self._do("request", flow)
        def responseheaders(self, flow): return self._do("responseheaders", flow)
        def response(self, flow): return self._do("response", flow)
        def error(self, flow): return self._do("error", flow)


    addons = [Does()]
'''
"""A script whose hooks do what each request asks for; requests that ask for nothing are no flows."""

Event = dict[str, Any]
"""What a node says of itself: a line of its standard error."""


def do(**hooks: str) -> list[str]:
    """Fields that tell `DOES` what to do in which hook: `do(request="flow.kill()")`. The code knows flow, request,
    response, edge, log and the modules; where it awaits, the hook is a coroutine.
    """
    return [f"X-Do-{hook}: {quote(dedent(code).strip())}" for hook, code in hooks.items()]


def waits(path: str, code: str) -> str:
    """Code that waits, in a hook of a request for that path (`Site.wait_for_hook`)."""
    return f"logging.warning('waits for {path}')\n{code}"


class Site:
    """A node with scripts in front of a scripted origin; a context manager."""

    def __init__(
        self,
        *sources: str,
        addons: Mapping[str, Any] | None = None,
        filters: Mapping[int, str] | None = None,
        may_fail: bool = False,
        **tables: Any,
    ) -> None:
        """`sources` are the scripts' text, which `may_fail` to be loaded; `addons` and `tables` add to the node's
        configuration, `filters` are those of scripts by number.
        """
        self._may_fail = may_fail
        self.folder = Path(tempfile.mkdtemp(prefix="edgeproxy-scripts-"))
        self.scripts = [self.folder / f"script{number or ''}.py" for number in range(len(sources))]
        for path, source in zip(self.scripts, sources, strict=True):
            path.write_text(dedent(source))
        self.origin = Origin()
        paths = [str(path) for path in self.scripts]
        by_path = {paths[number]: expression for number, expression in (filters or {}).items()}
        table = {"scripts": paths, "filters": by_path, **(addons or {})}
        self.node = Node(self.origin.url, addons=table, **tables)
        self._answers: list[tuple[Response, int]] = []
        self._others = 0
        self._read = 0
        self._events: list[Event] = []
        self._past = 0
        """How many lines there were before."""

    def __enter__(self) -> Self:
        self.node.__enter__()
        failed = self.events("script_not_loaded")
        if failed and not self._may_fail:
            self.__exit__()
            raise AssertionError(failed)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.node.__exit__()
        finally:
            self.origin.stop()

    # --- what is asked

    def get(self, target: str, *fields: str, host: str = "", method: str = "GET", body: bytes = b"") -> Response:
        """One request on a connection of its own."""
        with self.node.connect() as client:
            return self.ask(client, target, *fields, host=host, method=method, body=body)

    def ask(
        self, client: Client, target: str, *fields: str, host: str = "", method: str = "GET", body: bytes = b""
    ) -> Response:
        """One request on this connection."""
        named = {"host": host} if host else {}
        client.send(request(target, *fields, method=method, body=body, **named))
        return self.saw(client.response(method))

    def saw(self, answer: Response) -> Response:
        """An answer that a test has read by itself."""
        self._answers.append((answer, len(answer.body)))
        return answer

    def unanswered(self, count: int = 1) -> None:
        """So many requests were sent whose answers are not whole, if there are any."""
        self._others += count

    # --- what is logged

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """On leaving: every request has exactly one line, which says what its client was sent."""
        self._answers.clear()
        self._others = 0
        self.forget()
        yield
        expected = self._past + len(self._answers) + self._others
        until(lambda: len(self._lines()) >= expected, "a line of each request")
        self.node.flushed()
        lines, self._past = self._lines()[self._past :], len(self._lines())
        told = [(line["method"], line["path"], line["query"], line["outcome"]) for line in lines]
        assert self._past == expected, f"not one line for each request: {told}"
        found = {line["trace_id"]: line for line in lines}
        assert len(found) == len(lines), told
        for answer, length in self._answers:
            line = found[answer.trace_id]
            said = (line["status"], line["bytes_out"])
            assert said == (answer.status, length), f"{line['method']} {line['path']}: its line says {said}"

    def _lines(self) -> list[Record]:
        return [line for line in self.node.lines() if line["path"] != "/flushed"]

    def record(self, answer: Response) -> Record:
        """An answer's access-log line."""
        return self.node.record(answer.trace_id)

    def script(self, answer: Response) -> dict[str, Any]:
        """What its line says of scripts."""
        found = self.record(answer)["script"]
        assert isinstance(found, dict), found
        return found

    def logged(self, answer: Response) -> dict[str, str]:
        """What scripts wrote into its line."""
        log = self.script(answer)["log"]
        assert isinstance(log, dict)
        return log

    # --- what the node says

    def events(self, name: str = "", **fields: Any) -> list[Event]:
        """The node's events of that name so far, with these fields."""
        with self.node.stderr_file.open("rb") as stderr:
            stderr.seek(self._read)
            text = stderr.read()
        whole = text.rfind(b"\n") + 1
        self._read += whole
        for line in text[:whole].splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self._events.append(event)
        found = [event for event in self._events if name in ("", event.get("event"))]
        return [event for event in found if fields.items() <= event.items()]

    def event(self, name: str, **fields: Any) -> Event:
        """Wait for one such event; a second one is a failure."""
        found = until(lambda: self.events(name, **fields), f"the event {name} {fields}")
        assert len(found) == 1, found
        return found[0]

    def wait_for_hook(self, path: str) -> None:
        """Until the hook of a request for a path waits that `waits` is done by."""
        self.event("script_log", message=f"waits for {path}")
        until(lambda: self.in_flight(path) == ["script"], "the hook to wait")

    def forget(self) -> None:
        """Let what the origin has seen so far be no more."""
        self.origin.requests.clear()
        self.origin.broken.clear()

    def counters(self) -> dict[str, float]:
        """The worker's metrics of scripts, by their names without prefix and suffix."""
        with Client(int(self.node.admin_url.rpartition(":")[2])) as client:
            text = client.get("/metrics").text
        found: dict[str, float] = {}
        for line in text.splitlines():
            if line.startswith("edgeproxy_script_"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0].removeprefix("edgeproxy_script_").removesuffix("_total")
                found[name] = found.get(name, 0) + float(value)
        return found

    def change(self, source: str, script: int = 0) -> None:
        """Write another version of a script: the new file takes the old one's place, as editors and packages do it."""
        path = self.scripts[script]
        new = path.with_suffix(".new")
        new.write_text(dedent(source))
        new.replace(path)

    def in_flight(self, path: str) -> list[str]:
        """The stages of the requests for a path that are under way."""
        return [one.stage for one in self.node.status().requests if one.path == path]


def a_flow(*lines: tuple[bytes, bytes], body: bytes = b"", **options: Any) -> tuple[http.HTTPFlow, Came]:
    """A flow whose body has been held."""
    flow, came = flow_of(an_exchange(*lines, **options), client_of(("192.0.2.7", 1), ("192.0.2.1", 80), 0.0))
    flow.request.data.content = body
    return flow, came
