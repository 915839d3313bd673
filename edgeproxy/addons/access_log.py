"""AccessLog: one line of JSON for each request, as a node writes it (docs/access-log.md).

As a script of mitmproxy's: `mitmdump -q -s "$(python -m edgeproxy.addons access_log)" --mode reverse:http://origin`
"""

import os

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from edgeproxy.addons.station import Role, station
from edgeproxy.logging.access import Render, renderer
from edgeproxy.logging.target import STDOUT, Target

LOG_OPTION = "edge_access_log"


class AccessLog:
    """Writes the lines to the file that the option `edge_access_log` names, by default to standard output; never to
    that of the node whose configuration it is.
    """

    def __init__(self) -> None:
        """Write nothing yet."""
        self._path = STDOUT
        self._render: Render | None = None
        self._target: Target | None = None

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        station.declare(loader)
        loader.add_option(LOG_OPTION, str, STDOUT, "Where edgeproxy's access log goes; - is standard output.")

    def configure(self, updated: set[str]) -> None:
        """Do as the configuration says. Raises OptionsError where it is wrong, or the log can't be written."""
        del updated
        node = station.join(Role.LOG)
        self._render = renderer(node.config.log.format)
        self._path = str(getattr(ctx.options, LOG_OPTION))
        self._close()
        try:
            self._open()
        except OSError as error:
            raise exceptions.OptionsError(f"the access log {self._path} can't be written: {error.strerror}") from error
        if self.write not in node.accounts.sinks:
            node.accounts.sinks.append(self.write)

    def running(self) -> None:
        """Begin."""
        station.run()

    def done(self) -> None:
        """End."""
        node = station.join(Role.LOG)
        node.accounts.sinks.remove(self.write)
        station.leave(Role.LOG)
        self._close()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Note when it came."""
        station.begin(flow)

    def request(self, flow: http.HTTPFlow) -> None:
        """Note how long its body is, before scripts change it."""
        passage = station.passage(flow)
        if passage is not None:
            passage.note_body()

    def write(self, record: bytes) -> None:
        """Write a record's line, whole: a reader that dawdles is waited for."""
        line = record if self._render is None else self._render(record)
        target = self._open()
        while line:
            os.set_blocking(target.fd, True)
            line = line[target.write([line]) :]

    def _open(self) -> Target:
        if self._target is not None and self._path != STDOUT and self._target.has_moved(self._path):
            self._close()
        if self._target is None:
            self._target = Target.open(self._path)
        return self._target

    def _close(self) -> None:
        if self._target is not None:
            self._target.close()
            self._target = None


addons = [AccessLog()]
