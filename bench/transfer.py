"""A small HTTP client for what wrk can't do: looking at single answers, and taking large bodies at a given pace.

The body of a large transfer is read into one buffer and forgotten, so that the client costs little of the load's core.
"""

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass

BUFFER_BYTES = 256 * 1024
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """One GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Download:
    """One large body, taken."""

    status: int
    size_bytes: int
    seconds: float


def download(port: int, path: str, pace_bytes_per_s: float | None = None) -> Download:
    """Takes one body, as fast as it comes or no faster than the pace: a slow client is what makes a proxy buffer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    began = time.perf_counter()
    size = 0
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        while got := response.readinto(buffer):
            size += got
            if pace_bytes_per_s and (ahead := size / pace_bytes_per_s - (time.perf_counter() - began)) > 0:
                time.sleep(ahead)
        return Download(response.status, size, time.perf_counter() - began)
    finally:
        connection.close()
