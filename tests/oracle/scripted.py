"""The scripted origin: one for each engine, the same resources in both, and a note of all that it was asked."""

import re
from collections.abc import Iterable, Mapping
from typing import Self

from tests.oracle.clock import Clock
from tests.oracle.resources import Resource, State, answer
from tests.support import Broken, Conversation, Origin, Received

SEQUENCE = re.compile(r"/s(\d+)/")
"""In each path: the sequence that it belongs to."""
FAIL = "X-Origin-Fails"
"""A request field at which the origin closes the connection in place of an answer; it leaves the state as it was."""


class ScriptedOrigin:
    """An origin in front of which an engine stands; a context manager."""

    def __init__(self, clock: Clock, resources: Iterable[Resource]) -> None:
        """Have these resources; what has none is answered with 404."""
        self._clock = clock
        self._resources: Mapping[str, Resource] = {resource.path: resource for resource in resources}
        self._states = {path: State() for path in self._resources}
        self._asked: dict[int, list[Received]] = {}
        self.strays: list[Received] = []
        """Requests that no sequence can have caused."""
        self.errors: list[Exception] = []
        """What went wrong in the script itself."""
        self._origin = Origin(default=self._answer)
        self.url = self._origin.url

    @property
    def broken(self) -> list[Broken]:
        """What came that was no HTTP request."""
        return self._origin.broken

    def asked(self, sequence: int) -> list[Received]:
        """What came for a sequence so far, in order."""
        return self._asked.get(sequence, [])

    def _answer(self, talk: Conversation) -> None:
        talk.read_body()
        request = talk.request
        path = request.target.partition("?")[0]
        number = SEQUENCE.search(path)
        notes = self.strays if number is None else self._asked.setdefault(int(number[1]), [])
        notes.append(request)
        if request.values(FAIL):
            talk.close()
            return
        resource = self._resources.get(path)
        if resource is None:
            talk.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            data, is_last = answer(resource, self._states[path], request, self._clock.now_s)
        except Exception as error:
            self.errors.append(error)
            raise
        talk.send(data)
        if is_last:
            talk.end = "close"

    def __enter__(self) -> Self:
        self._origin.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._origin.__exit__()
