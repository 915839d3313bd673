"""The workers of one generation: as many processes as the configuration says, each on a socket of its own.

Knows how a worker is called. When there is a new generation, and what becomes of the old one, is `fleet`'s to say.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from edgeproxy.node.process import Keeper, Program
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.sockets import Listeners

KILL_AFTER_S = 2.0
"""How long after its own drain timeout a worker is given up on."""


class Crew:
    """The workers that run one generation of the configuration."""

    def __init__(
        self,
        module: str,
        generation: int,
        runtime: RuntimeDir,
        listeners: Listeners,
        *,
        workers: int,
        drain_timeout_s: float,
        on_death: Callable[[int], None],
    ) -> None:
        """Say what to run; `start` runs it."""
        self.generation = generation
        self.listeners = listeners
        self._config = runtime.config(generation)
        self._patience_s = drain_timeout_s + KILL_AFTER_S
        self._keepers = [
            Keeper(_program(module, index, generation, self._config, runtime, listeners.fd(index)), on_death=on_death)
            for index in range(workers)
        ]

    def __len__(self) -> int:
        return len(self._keepers)

    @property
    def pids(self) -> list[int]:
        """The workers' pids by index; 0 where one is being replaced."""
        return [keeper.pid for keeper in self._keepers]

    async def start(self) -> None:
        """Start all workers and wait until each accepts connections. Raises StartError, with none left running."""
        starting = [asyncio.create_task(keeper.start()) for keeper in self._keepers]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)
            self.kill()
            await self.stop()
            raise

    async def stop(self) -> None:
        """Let the workers drain, and end them."""
        await asyncio.gather(*(keeper.stop(self._patience_s) for keeper in self._keepers))
        self._config.unlink(missing_ok=True)

    def kill(self) -> None:
        """Make an end of the waiting for workers that drain."""
        for keeper in self._keepers:
            keeper.kill()


def _program(module: str, index: int, generation: int, config: Path, runtime: RuntimeDir, fd: int) -> Program:
    arguments = {
        "--index": index,
        "--generation": generation,
        "--config": config,
        "--runtime-dir": runtime.path,
        "--listen-fd": fd,
    }
    words = tuple(str(word) for pair in arguments.items() for word in pair)
    return Program(f"worker {index}", module, words, fds=(fd,))
