"""Calls of scripts' hooks: each on its own, timed, and with an end.

A hook that raises, or takes longer than `addons.timeout`, is logged with the trace id and counted, and what it had
changed is undone: the request goes on as if the hook was not there, or is refused, as `addons.on_error` has it. What
holds up the loop is named. A hook that is no coroutine costs no task.

Whatever a hook raises is its failure, be it SystemExit or a cancellation of its own task: no signal and no loop speaks
to a worker through exceptions.
"""

import asyncio
import contextlib
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Protocol, TypeGuard

import structlog
from mitmproxy.exceptions import AddonHalt

from edgeproxy.ledger import Counter
from edgeproxy.scripting.chain import Hook
from edgeproxy.scripting.errors import told

BLOCKED_S = 0.05
"""A hook that holds the loop for longer is named in the log."""


class Scope(Protocol):
    """For whom hooks are called: a request, or a client's connection."""

    context: contextvars.Context
    """What hooks run in."""
    trace_id: str
    failed: bool
    """Whether a hook failed without which the request is not to go on."""
    dropped: "set[asyncio.Task[None]]"
    """Tasks whose hooks are no longer waited for: they were cancelled."""

    def selects(self, hook: Hook) -> bool:
        """Whether the hook's filter is met now."""

    def note(self) -> Any:  # noqa: ANN401 the scope's own
        """What a hook may change, as it is now."""

    def undo(self, noted: Any) -> None:  # noqa: ANN401 what `note` returned
        """Put back what a hook has changed."""

    def check(self) -> None:
        """Raise ValueError where a hook has made of what it was given something that nobody can use."""

    def resumed(self) -> Awaitable[None] | None:
        """What to wait for before it goes on, where a hook has stopped it (flow.intercept)."""


class Calls:
    """One worker's."""

    def __init__(self, counters: "memoryview[int]", timeout_s: float, *, is_strict: bool) -> None:
        """Give coroutines `timeout_s`; `is_strict` says that nothing goes on without a hook that failed."""
        self._counters = counters
        self._timeout_s = timeout_s
        self._is_strict = is_strict

    def all(
        self, hooks: Sequence[Hook], arguments: tuple[Any, ...], scope: Scope, then: Callable[[], None]
    ) -> "asyncio.Task[None] | None":
        """Call them in their order, `then` what comes next: at once, or from the loop once the task is done that is
        returned. A cancelled task is followed by nothing.
        """
        for number, hook in enumerate(hooks):
            if not scope.selects(hook):
                continue
            noted = scope.note()
            outcome = self._call(hook, arguments, scope, noted)
            if _is_awaited(outcome):
                return self._later(self._go_on(hooks[number:], outcome, noted, arguments, scope), scope, then)
            if outcome is _HALT or scope.failed:
                break
        waiting = scope.resumed()
        if waiting is not None:
            return self._later(_wait(waiting), scope, then)
        then()
        return None

    @staticmethod
    def _later(coroutine: Any, scope: Scope, then: Callable[[], None]) -> "asyncio.Task[None]":  # noqa: ANN401
        outside = contextvars.copy_context()
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine, context=scope.context.copy())

        def ended(done: "asyncio.Task[None]") -> None:
            if done not in scope.dropped:
                then()

        task.add_done_callback(ended, context=outside)
        return task

    async def _go_on(
        self,
        hooks: Sequence[Hook],
        awaitable: Awaitable[object],
        noted: object,
        arguments: tuple[Any, ...],
        scope: Scope,
    ) -> None:
        """Await the first hook, whose call has returned that, then call the others."""
        outcome = await self._await(hooks[0], awaitable, scope, noted)
        for hook in hooks[1:]:
            if outcome is _HALT or scope.failed or asyncio.current_task() in scope.dropped:
                break
            if not scope.selects(hook):
                continue
            noted = scope.note()
            outcome = self._call(hook, arguments, scope, noted)
            if _is_awaited(outcome):
                outcome = await self._await(hook, outcome, scope, noted)
        waiting = scope.resumed()
        if waiting is not None:
            await waiting

    def _call(self, hook: Hook, arguments: tuple[Any, ...], scope: Scope, noted: object) -> object:
        began = time.monotonic()
        try:
            try:
                outcome: object = scope.context.copy().run(hook.function, *arguments)
            except AddonHalt:
                outcome = _HALT
            if not _is_awaited(outcome):
                scope.check()
        except BaseException as error:  # noqa: BLE001  whatever a script does, the request has an end
            self._failed(hook, scope, noted, error)
            return None
        finally:
            self._took(hook, scope, time.monotonic() - began)
        return outcome

    async def _await(self, hook: Hook, awaitable: Awaitable[object], scope: Scope, noted: object) -> object:
        outcome: object = _HALT
        task = asyncio.current_task()
        limit = asyncio.timeout(self._timeout_s)
        try:
            with contextlib.suppress(AddonHalt):
                # The second limit is for hooks that don't let themselves be cancelled.
                async with asyncio.timeout(2 * self._timeout_s), limit:
                    outcome = await _Measured(awaitable, lambda seconds: self._took(hook, scope, seconds))
            if task is not None and task.cancelling():
                await asyncio.sleep(0)  # where a hook has cancelled its own task, it is told so here
            scope.check()
        except BaseException as error:  # as above
            if task is None or task in scope.dropped:
                raise
            while task.cancelling():
                task.uncancel()
            if limit.expired():
                self._counters[Counter.SCRIPT_TIMEOUTS] += 1
                late = TimeoutError(f"it took longer than {self._timeout_s} s (addons.timeout)")
                self._failed(hook, scope, noted, late)
            else:
                self._failed(hook, scope, noted, error)
            return None
        return outcome

    def _took(self, hook: Hook, scope: Scope, seconds: float) -> None:
        if seconds > BLOCKED_S:
            self._counters[Counter.SCRIPT_BLOCKS] += 1
            structlog.get_logger().warning(
                "script_blocked",
                script=hook.script,
                hook=hook.name,
                ms=round(seconds * 1e3, 1),
                trace_id=scope.trace_id,
                hint="no other request of this worker went on meanwhile: await what takes time, or use @concurrent",
            )

    def _failed(self, hook: Hook, scope: Scope, noted: object, error: BaseException) -> None:
        scope.undo(noted)
        scope.failed = self.fault(hook.script, hook.name, scope.trace_id, error)

    def fault(self, script: str, hook: str, trace_id: str, error: BaseException) -> bool:
        """Log and count that a hook failed, or made what can't be used; whether the request is not to go on."""
        self._counters[Counter.SCRIPT_ERRORS] += 1
        structlog.get_logger().error(
            "script_failed",
            script=script,
            hook=hook,
            trace_id=trace_id,
            error=told(error),
            action="refused" if self._is_strict else "the request goes on as if the hook was not there",
            exc_info=error,
        )
        return self._is_strict


def _is_awaited(outcome: object) -> TypeGuard[Awaitable[object]]:
    """Whether a hook is to be waited for: most return None."""
    return outcome is not None and inspect.isawaitable(outcome)


_HALT = object()
"""A hook wants those behind it not to be called."""


async def _wait(awaitable: Awaitable[None]) -> None:
    await awaitable


class _Measured:
    """Awaits something, and tells how long each of its steps held the loop, in seconds."""

    def __init__(self, awaitable: Awaitable[object], took: Callable[[float], None]) -> None:
        self._awaitable = awaitable
        self._took = took

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._awaitable.__await__()
        thrown: BaseException | None = None
        is_cancelled = False
        while True:
            began = time.monotonic()
            try:
                step = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration as stop:
                return stop.value
            finally:
                self._took(time.monotonic() - began)
            thrown = None
            try:
                yield step
            except GeneratorExit:
                steps.close()
                raise
            except asyncio.CancelledError as error:
                if is_cancelled:
                    steps.close()  # it was told already, and waits for something else
                    raise
                is_cancelled = True
                thrown = error
            except BaseException as error:  # noqa: BLE001  it is for what is awaited
                thrown = error
