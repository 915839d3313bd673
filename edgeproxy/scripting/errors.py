"""What can go wrong with operators' scripts, and what a client is told of it."""

from http import HTTPStatus

from edgeproxy.proxy.errors import Refusal

KILLED = Refusal("script_killed", HTTPStatus.FORBIDDEN, "a script ended the request without an answer (flow.kill)")
FAILED = Refusal(
    "script_failed",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "a script that decides on this request failed, and it is not to go on without (addons.on_error)",
)


class ScriptError(Exception):
    """A script can't be loaded: the message names it and says why."""


class ChangeError(ValueError):
    """A script has made of a message what can't be sent: the message says what, and what is allowed."""


def told(error: BaseException) -> str:
    """Type and message of an exception, which may be one of a script's own that has none."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  a script's own `__str__`
        return name
