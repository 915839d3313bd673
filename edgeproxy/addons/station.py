"""Where the addons meet: the options that they share, the node that these name, and what is done last of all addons.

However the addons are loaded, as one script or as several, with operators' scripts before, between or behind them: a
request is answered when all scripts have seen it, and its record is made when all have seen its response.
"""

from enum import Enum
from pathlib import Path
from weakref import WeakKeyDictionary

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from edgeproxy.addons.node import Node
from edgeproxy.addons.passage import Passage
from edgeproxy.config import SettingsError

CONFIG_OPTION = "edge_config"
_HERE = Path(__file__).parent


class Role(Enum):
    """What an addon is there for."""

    TRACE = "trace"
    CACHE = "cache"
    LOG = "log"


class Station:
    """One mitmproxy's."""

    name = "edgeproxy"
    """As an addon: the last of all, whose hooks come after those of all scripts."""

    def __init__(self) -> None:
        """Nobody is there yet."""
        self._roles: set[Role] = set()
        self._node: Node | None = None
        self._path: str | None = None
        self._passages: WeakKeyDictionary[http.HTTPFlow, Passage] = WeakKeyDictionary()

    @property
    def node(self) -> Node | None:
        """The node, once an addon has joined."""
        return self._node

    # --- the addons' calls

    def declare(self, loader: Loader) -> None:
        """Declare the options that all addons share."""
        loader.add_option(CONFIG_OPTION, str, "", "The configuration file of edgeproxy; without one, its defaults.")

    def join(self, role: Role) -> Node:
        """Have an addon's part be done; `leave` ends that. Raises OptionsError where the configuration is wrong."""
        path = str(getattr(ctx.options, CONFIG_OPTION))
        if self._node is None or path != self._path:
            try:
                self._node = Node.read(Path(path).expanduser() if path else None)
            except (SettingsError, OSError) as error:
                raise exceptions.OptionsError(str(error)) from error
            self._path = path
        self._roles.add(role)
        self._settle(self._node)
        return self._node

    def leave(self, role: Role) -> None:
        """An addon is gone."""
        self._roles.discard(role)
        if self._node is not None:
            self._settle(self._node)
        if not self._roles and self.name in ctx.master.addons:
            ctx.master.addons.remove(self)

    def run(self) -> None:
        """Once mitmproxy runs: come last, and have it do what an edge needs."""
        if ctx.master.addons.get(self.name) is None:
            ctx.master.addons.add(self)
        # The client's Host is what it asked for; a hit needs no origin, be it that there is none; and what the origin
        # says of its other protocols is nobody's to change.
        ctx.options.update(keep_host_header=True, connection_strategy="lazy", keep_alt_svc_header=True)

    def passage(self, flow: http.HTTPFlow) -> Passage | None:
        """What is known of a flow; None where nobody has to do with any."""
        known = self._passages.get(flow)
        if known is None and self._node is not None and self._roles:
            known = self._passages[flow] = Passage(self._node, flow, _scripts())
            if Role.CACHE in self._roles:
                known.show_what_was_asked_for()
        return known

    def begin(self, flow: http.HTTPFlow) -> None:
        """A request's head is there; a flow that is replayed begins anew."""
        known = self._passages.get(flow)
        if known is not None and known.is_over:
            del self._passages[flow]
        self.passage(flow)

    def _settle(self, node: Node) -> None:
        node.show(traces=Role.TRACE in self._roles, caches=Role.CACHE in self._roles)

    @property
    def _forwards(self) -> bool:
        """Whether heads are the edge's to write."""
        return bool(self._roles & {Role.TRACE, Role.CACHE})

    # --- mitmproxy's calls, after those of all other addons

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """All scripts have seen the head."""
        passage = self.passage(flow)
        if passage is not None and self._forwards and passage.must_go_natively and flow.request.stream:
            passage.go_natively()

    async def request(self, flow: http.HTTPFlow) -> None:
        """All scripts have seen the request."""
        passage = self.passage(flow)
        if passage is None or not self._forwards:
            return
        if Role.CACHE not in self._roles or passage.must_go_natively:
            passage.go_natively()
        if passage.forwarding is None:
            await passage.answer()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """All scripts have seen the response's head."""
        passage = self._passages.get(flow)
        if passage is not None:
            passage.stream()

    def response(self, flow: http.HTTPFlow) -> None:
        """All scripts have seen the response."""
        passage = self._passages.get(flow)
        if passage is not None:
            passage.close()

    def error(self, flow: http.HTTPFlow) -> None:
        """The flow has failed."""
        passage = self._passages.get(flow)
        if passage is not None:
            passage.fail()


def _scripts() -> list[str]:
    """The operators' scripts, by name."""
    paths = (Path(path) for path in ctx.options.scripts)
    return [path.name for path in paths if path.parent != _HERE]


station = Station()
"""The one there is: mitmproxy runs each script file as a module of its own, which all find this one."""
