"""`edgeproxy inspect`: stock mitmweb on a node's configuration, to look into flows of a test port.

mitmweb is a process of its own, with the node's concerns as addons (`edgeproxy.addons`) and the operator's scripts; it
shares nothing with the node that runs on the same configuration: no port, no log, no store, no runtime directory.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import click

from edgeproxy.cli.common import MISCONFIGURED, fail, plain_errors, required_config_option
from edgeproxy.config import Config
from edgeproxy.node.source import Source

HOST = "127.0.0.1"
STDOUT = "-"
END_S = 10.0
"""How long mitmweb may take to end before it is made to."""
_MITMWEB = "import sys; sys.stdout = sys.stderr; from mitmproxy.tools.main import mitmweb; mitmweb()"
"""Standard output is the access log's."""
_PORT = click.IntRange(0, 65535)


@click.command()
@required_config_option
@click.option("--port", default=0, type=_PORT, help="Port for requests that are to be looked into; 0 = a free one.")
@click.option("--web-port", default=0, type=_PORT, help="Port of mitmweb's page; 0 = a free one.")
@click.option(
    "--access-log",
    default=STDOUT,
    show_default=True,
    type=click.Path(path_type=Path, allow_dash=True),
    help="Where its access log goes, a line of JSON a request; - is standard output.",
)
def inspect(config_path: Path, port: int, web_port: int, access_log: Path) -> None:
    """Look into live flows: mitmweb, on loopback, with a node's configuration, origins and scripts.

    It prints a url for requests, and that of the page that shows them, which has the token it asks for. The node itself
    runs on and notices nothing. Ctrl-C ends it.
    """
    with plain_errors():
        config = Source(config_path).read().config
        if not config.origin:
            fail(f"{config_path} names no origin: there is nothing to send requests to", MISCONFIGURED)
        log = STDOUT if str(access_log) == STDOUT else str(access_log.absolute())
        if log == str(Path(config.log.access).absolute()):
            fail(f"{access_log} is the node's own access log (log.access)", MISCONFIGURED)
        if log != STDOUT:
            access_log.open("ab").close()  # so that what is wrong with it is said here
        options = _options(config, config_path, log, *_free(port, web_port))
        with tempfile.TemporaryDirectory(prefix="edgeproxy-inspect-") as folder:
            raise SystemExit(_run(Path(folder), options))


def _free(port: int, web_port: int) -> tuple[int, int]:
    """Two ports that nobody has: these, or, for 0, any."""
    with socket.socket() as proxy, socket.socket() as web:
        for sock, wanted, option in ((proxy, port, "--port"), (web, web_port, "--web-port")):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((HOST, wanted))
                sock.listen(1)
            except OSError as error:
                fail(f"{HOST}:{wanted} can't be listened on: {error.strerror} ({option})")
        return proxy.getsockname()[1], web.getsockname()[1]


def _options(config: Config, config_path: Path, log: str, port: int, web_port: int) -> dict[str, Any]:
    """What mitmproxy is told. A script's option can't take the place of one of these."""
    here = Path(__file__).parent.parent / "addons"
    return {
        **config.addons.options,
        "mode": [f"reverse:{config.origin[0].urls[0]}"],
        "listen_host": HOST,
        "listen_port": port,
        "web_host": HOST,
        "web_port": web_port,
        "web_open_browser": False,
        "termlog_verbosity": "warn",
        "scripts": [str(here / "all.py"), str(here / "inspection.py")],
        "edge_config": str(config_path.absolute()),
        "edge_access_log": log,
    }


def _run(folder: Path, options: dict[str, Any]) -> int:
    """Run mitmweb until it is told to end, or ends; the exit code."""
    told, report = os.pipe()
    # mitmproxy's own configuration file, in YAML, of which JSON is a part: the user's does not count.
    text = json.dumps({**options, "edge_report": str(report)})
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    mitmweb = subprocess.Popen(
        [sys.executable, "-c", _MITMWEB, "--set", f"confdir={folder}"],
        stdin=subprocess.PIPE,  # with its end mitmweb ends, whatever has become of this process
        pass_fds=(report,),
        start_new_session=True,  # Ctrl-C is this process's to act on
    )
    os.close(report)
    try:
        with os.fdopen(told) as lines:
            line = lines.readline()
        told_us = json.loads(line or "{}")
        if "error" in told_us:
            fail(told_us["error"])
        if told_us:
            click.echo(f"requests to look into: {told_us['proxy']}", err=True)
            click.echo(f"the page that shows them: {told_us['web']}", err=True)
            click.echo("Ctrl-C ends it", err=True)
        code = mitmweb.wait()
        fail(f"mitmweb has ended by itself (exit code {code}); what it said is above")
    except KeyboardInterrupt:
        return 0
    finally:
        _end(mitmweb)


def _interrupted(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _end(mitmweb: "subprocess.Popen[bytes]") -> None:
    """Have mitmweb end in order, or else at all."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if mitmweb.stdin is not None:
        mitmweb.stdin.close()
    try:
        mitmweb.wait(END_S)
    except subprocess.TimeoutExpired:
        mitmweb.kill()
        mitmweb.wait()
