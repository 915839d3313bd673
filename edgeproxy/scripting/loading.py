"""A script's file as mitmproxy addons: read, executed, looked through for hooks. What it declares is taken as it is.

Knows files and modules; what becomes of a script that can't be loaded is `host`'s business.
"""

import importlib.machinery
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mitmproxy.addonmanager import traverse

from edgeproxy.scripting.chain import CLIENT_HOOKS, LIFE_HOOKS, REQUEST_HOOKS
from edgeproxy.scripting.errors import ScriptError, told
from edgeproxy.scripting.filters import Selector

_OURS = frozenset({*REQUEST_HOOKS, *CLIENT_HOOKS, *LIFE_HOOKS})
NOT_CALLED = frozenset(
    {
        *("server_connect", "server_connected", "server_disconnected", "server_connect_error"),
        *("next_layer", "tls_clienthello", "tls_start_client", "tls_start_server", "tls_established_client"),
        *("tls_established_server", "tls_failed_client", "tls_failed_server", "quic_start_client", "quic_start_server"),
        *("tcp_start", "tcp_message", "tcp_end", "tcp_error", "udp_start", "udp_message", "udp_end", "udp_error"),
        *("dns_request", "dns_response", "dns_error", "websocket_start", "websocket_message", "websocket_end"),
        *("http_connect", "http_connect_upstream", "http_connected", "http_connect_error", "socks5_auth", "update"),
    }
)
"""Hooks of mitmproxy's that nothing on the edge calls."""

type Stamp = tuple[int, int, int]
"""Modification time, size and inode of a file: what changes when it is changed."""


class Addon(NamedTuple):
    """One addon of a script."""

    instance: Any
    hooks: dict[str, Callable[..., Any]]
    selector: Selector


class Script(NamedTuple):
    """A script that was read and executed."""

    path: str
    name: str
    """As logs and records call it: the file's name."""
    module: types.ModuleType
    addons: list[Addon]
    not_called: list[str]
    """Hooks that it has and that the edge does not call."""


def stamp_of(path: str) -> Stamp | None:
    """What tells whether a file is still the same; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_script(path: str, expression: str | None, default: str) -> Script:
    """Execute a script. `expression` is the filter that is configured for it, None: none is; `default` is for addons
    that have no filter of their own.

    Raises ScriptError when it can't be read or fails, in whatever way, when a hook is no function or a filter can't be
    parsed.
    """
    try:
        return _read(path, expression, default)
    except ScriptError:
        raise
    except BaseException as error:  # it may end itself, or have addons that can't be looked at
        raise ScriptError(f"{path}: {told(error)}") from error


def _read(path: str, expression: str | None, default: str) -> Script:
    module = _executed(path)
    own = getattr(module, "edge_filter", None)
    addons = []
    for instance in traverse([module]):
        wanted = expression
        if wanted is None:
            wanted = getattr(instance, "edge_filter", own)
        addons.append(Addon(instance, _hooks(path, instance), _selector(path, default if wanted is None else wanted)))
    not_called = sorted({name for addon in addons for name in NOT_CALLED if _has(addon.instance, name)})
    return Script(path, Path(path).name, module, addons, not_called)


def _executed(path: str) -> types.ModuleType:
    file = Path(path).absolute()
    name = f"__mitmproxy_script__.{file.stem}"
    module = types.ModuleType(name)
    module.__file__ = str(file)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin=str(file))
    former = sys.modules.get(name)
    search = sys.path
    sys.path = [str(file.parent), *search]
    sys.modules[name] = module
    try:
        # Compiled here, not by importlib: what that caches beside the file may be older than a change of this second.
        exec(compile(file.read_bytes(), str(file), "exec"), vars(module))  # noqa: S102  that is what a script is for
    except BaseException:
        sys.modules.pop(name, None)
        if former is not None:
            sys.modules[name] = former
        raise
    finally:
        sys.path = search
    if not getattr(module, "name", None):
        vars(module)["name"] = path
    return module


def _hooks(path: str, instance: object) -> dict[str, Callable[..., Any]]:
    found = {}
    for name in _OURS:
        function = getattr(instance, name, None)
        if function is None or isinstance(function, types.ModuleType):
            continue
        if not callable(function):
            raise ScriptError(f"{path}: {name} is no function, though it has a hook's name")
        found[name] = function
    return found


def _has(instance: object, name: str) -> bool:
    function = getattr(instance, name, None)
    return callable(function) and not isinstance(function, types.ModuleType)


def _selector(path: str, expression: object) -> Selector:
    if not isinstance(expression, str):
        raise ScriptError(f"{path}: edge_filter is {expression!r}; expected a filter expression")
    try:
        return Selector(expression)
    except ValueError as error:
        raise ScriptError(f"{path}: {error}") from error
