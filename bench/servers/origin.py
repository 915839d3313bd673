"""The origin behind every server: nginx with static files, on the load's core.

/hit/NAME may be kept for an hour, and so may /hit/scripted/NAME, the same file; /miss/NAME must not be kept;
/slow/ANYTHING may be kept and takes two seconds; /echo says which trace context reached it, /count how many requests
did. It is no server under measurement, only part of the load.
"""

import random
from pathlib import Path

from bench import machine
from bench.process import find_tool
from bench.servers.base import Server, Site
from bench.servers.slow import SlowObjects
from bench.transfer import get

SIZES = {"785": 785, "100k": 100 * 1024, "1m": 1024 * 1024, "64m": 64 * 1024 * 1024}
SLOW = "100k"  # the body of every slow object


class Origin(Server):
    """nginx as every server's upstream."""

    name = "origin"
    title = "origin (nginx)"
    cache_header = ""

    def __init__(self, work: Path, core: int) -> None:
        super().__init__(Site(work, work, core, 0))
        self._nginx = find_tool("nginx", "apt-get install nginx")
        self._asked = 1  # at its start
        self._slow: SlowObjects | None = None

    def launch(self) -> None:
        files = self.folder / "files"
        files.mkdir()
        generator = random.Random(785)  # the same bytes in every run
        for name, size in SIZES.items():
            (files / name).write_bytes(generator.randbytes(size))
        self._slow = SlowObjects(self.body(SLOW))
        self._slow.start()
        config = self.configure("origin.conf", slow_port=self._slow.port)
        self.start(self._nginx, "-c", str(config), "-p", str(self.folder))

    def stop(self) -> None:
        """Ends it with what lies behind it."""
        super().stop()
        if self._slow:
            self._slow.stop()

    def worker_pid(self) -> int:
        return self.descendant("nginx: worker")

    def version(self) -> str:
        return machine.first_output_line(self._nginx, "-v").removeprefix("nginx version: ")

    def body(self, name: str) -> bytes:
        """What /hit/NAME and /miss/NAME answer with."""
        return (self.folder / "files" / name).read_bytes()

    def requests(self) -> int:
        """How many requests have reached it so far, those that asked for the count left out."""
        self._asked += 1
        # "Active connections: 1 / server accepts handled requests / 3 3 9 / Reading: …": the ninth number is the one
        return int(get(self.port, "/count").body.split()[9]) - self._asked
