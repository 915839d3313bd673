"""`edgeproxy demo`: a demo site, a node in front of it, and things to try, with no configuration at all.

Everything lies in a directory of its own that goes when the demo ends; nothing outside it is read or written.
"""

import asyncio
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click
import msgspec

from edgeproxy.cli.common import plain_errors
from edgeproxy.config.toml import toml_value
from edgeproxy.demo.leash import leashed
from edgeproxy.demo.shared import HOST, KEY, SharedPlaces, shared_tour
from edgeproxy.demo.tour import AWAY, Places, Stop, tour
from edgeproxy.node import Description, ListenError, NodeError, RuntimeDir, StartError
from edgeproxy.node.process import python_command
from edgeproxy.node.sockets import Listeners
from edgeproxy.node.source import Source
from edgeproxy.node.status import read_status
from edgeproxy.node.supervisor import Supervisor

PORT = 8080
WORKERS = 2
RULES_KNOWN = "redis: the purge rules are known"
"""What a worker logs when it uses Redis."""
_STOP_PATIENCE_S = 5.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_CONFIG = """\
[node]
name = "demo"
workers = {workers}
runtime_dir = {runtime_dir}
ledger_bytes = 4194304

[listen]
http = {listen}

[[origin]]
name = "demo"
urls = [{origin}]

[[origin]]
name = "away"
urls = [{away}]

[[route]]
match = "{away_path}/*"
origin = "away"

[[route]]
match = "/*"
origin = "demo"

[log]
access = {access_log}
level = "warning"

[admin]
listen = "127.0.0.1:0"

[limits]
drain_timeout = 5.0
"""


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help=f"Port of the node.  [default: {PORT}, or a free one]")
@click.option("--workers", type=click.IntRange(1, 64), default=WORKERS, show_default=True, help="Worker processes.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="File to write where everything is to, as JSON.")
@click.option(
    "--redis", is_flag=True, help="Two nodes that share a Redis Cluster, which is started too (redis-server)."
)
def demo(port: int | None, workers: int, ready_file: Path | None, redis: bool) -> None:
    """Run a node in front of a demo site, and print what there is to try. Ctrl-C ends it and leaves nothing behind."""
    if redis:
        _share(port, workers, ready_file)
        return
    with plain_errors(), _directory() as directory, _origin(directory) as origin, _nothing() as away:
        config = _write_config(directory, origin=origin, away=away, listen=_address(port), workers=workers)

        def ready(description: Description) -> None:
            places = _places(directory, description)
            stops = tour(places)
            _print(f"A demo site, and edgeproxy in front of it at {places.url}", stops)
            if ready_file:
                ready_file.write_bytes(msgspec.json.encode({"places": places._asdict(), "stops": stops}))

        click.echo("Starting the demo …")
        asyncio.run(Supervisor(Source(config, _environ()), stop_signals=_STOP_SIGNALS, on_ready=ready).run())
        click.echo("The demo has ended.")


def _environ() -> dict[str, str]:
    """What the shell has for other nodes is not for these."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("EDGEPROXY_", "OTEL_"))}


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="edgeproxy-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _origin(directory: Path) -> Iterator[str]:
    """Run the demo's site in a process of its own; its url. Its socket is there before it is: nothing to wait for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        process = subprocess.Popen(
            [*python_command("edgeproxy.demo.origin"), "--listen-fd", str(fd), "--log", str(directory / "origin.log")],
            stdin=subprocess.DEVNULL,
            pass_fds=(fd,),
            start_new_session=True,
        )
    try:
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _nothing() -> Iterator[str]:
    """Keep a port on which nobody listens; its url."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def _address(port: int | None) -> str:
    if port is not None:
        return f"127.0.0.1:{port}"
    probe = Listeners(f"127.0.0.1:{PORT}", 1)
    try:
        probe.open(1)
    except ListenError:
        return "127.0.0.1:0"
    probe.close()
    return f"127.0.0.1:{PORT}"


def _write_config(directory: Path, *, origin: str, away: str, listen: str, workers: int) -> Path:
    # A directory of its own: the node watches the one that the environment file is in, and the log's is busy.
    folder = directory / "conf"
    folder.mkdir()
    (folder / "edgeproxy.env").touch()
    text = _CONFIG.format(
        workers=workers,
        runtime_dir=toml_value(str(directory / "run")),
        listen=toml_value(listen),
        origin=toml_value(origin),
        away=toml_value(away),
        away_path=AWAY,
        access_log=toml_value(str(directory / "access.log")),
    )
    path = folder / "edgeproxy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _places(directory: Path, description: Description) -> Places:
    return Places(
        url=f"http://{description.listen[0]}",
        program=_program(),
        config=shlex.quote(description.config),
        access_log=shlex.quote(description.access_log),
        origin_log=shlex.quote(str(directory / "origin.log")),
        admin=_read(RuntimeDir(directory / "run").admin_address),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _program() -> str:
    """How the user would call this program again."""
    called = Path(sys.argv[0])
    if called.name != "edgeproxy":
        return shlex.join(python_command("edgeproxy"))
    on_path = shutil.which("edgeproxy")
    if on_path and called.exists() and Path(on_path).samefile(called):
        return "edgeproxy"
    return shlex.quote(str(called))


def _print(title: str, stops: list[Stop]) -> None:
    click.echo(f"\n{title}\n")
    for stop in stops:
        click.secho(f"# {stop.shows}", dim=True)
        click.echo(f"{stop.command}\n")
    click.echo("Ctrl-C ends the demo.")


# With Redis.

_SHARED_CONFIG = """\
[node]
name = {name}
workers = {workers}
runtime_dir = {runtime_dir}
ledger_bytes = 4194304

[listen]
http = {listen}

[[origin]]
name = "demo"
urls = [{origin}]

[[route]]
match = "/*"
origin = "demo"
cache.key_host = {key_host}

[cache]
store = "redis"
memory_bytes = 0   # so that each request shows in Redis
purge_allow = ["127.0.0.1"]

[cache.redis]
nodes = {nodes}
trail_ratio = 1.0   # every trace is there for `edgeproxy keytrace`

[log]
access = {access_log}

[admin]
listen = "127.0.0.1:0"

[limits]
drain_timeout = 5.0
"""
_READY_S = 60.0
_POLL_S = 0.05


def _share(port: int | None, workers: int, ready_file: Path | None) -> None:
    """Run two nodes that share a Redis Cluster until a signal says that it is enough."""
    # redis-py is loaded by those who want it.
    from edgeproxy.demo.cluster import redis_program, running_cluster  # noqa: PLC0415

    ended = threading.Event()
    with plain_errors():
        redis_program()
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: ended.set())
        click.echo("Starting the demo: a Redis Cluster of six servers, and two nodes …")
        with (
            _directory() as directory,
            _origin(directory) as origin,
            running_cluster(directory, ended.is_set) as cluster,
            ExitStack() as nodes,
        ):
            places: dict[str, str] = {}
            for name, listen in (("a", _address(port)), ("b", "127.0.0.1:0")):
                config = _write_shared_config(directory, name, origin, listen, workers, cluster.addresses)
                line = shlex.join([*python_command("edgeproxy"), "run", "-c", str(config)])
                nodes.enter_context(leashed(line, log=directory / f"edge-{name}.log", environ=_environ()))
                places[name] = str(config)
            a, b = (_started(directory, name, ended) for name in places)
            if not ended.is_set():
                server = cluster.master_of(KEY)
                at = SharedPlaces(
                    a=a,
                    b=b,
                    program=_program(),
                    config_a=shlex.quote(places["a"]),
                    config_b=shlex.quote(places["b"]),
                    redis_cli=shutil.which("redis-cli") or "",
                    port=server.port,
                    pid_file=shlex.quote(str(server.folder / "pid")),
                )
                stops = shared_tour(at)
                _print(f"A demo site, edge A at {at.a}, edge B at {at.b}, and the Redis Cluster that they share", stops)
                if ready_file:
                    ready_file.write_bytes(msgspec.json.encode({"places": at._asdict(), "stops": stops}))
                ended.wait()
        click.echo("The demo has ended.")


def _started(directory: Path, name: str, ended: threading.Event) -> str:
    """Wait until a node serves and uses Redis, or the demo is to end; its url. Raises StartError."""
    log = directory / f"edge-{name}.log"
    deadline = time.monotonic() + _READY_S
    while not ended.wait(_POLL_S):
        said = log.read_text(errors="replace")
        with suppress(NodeError, OSError):
            status = read_status(directory / f"run-{name}")
            if status.state == "running" and said.count(RULES_KNOWN) >= len(status.workers):
                return f"http://{status.listen[0]}"
        if time.monotonic() > deadline:
            raise StartError(f"edge {name.upper()} was not ready in {_READY_S:g} s:\n{said[-2000:]}")
    return ""


def _write_shared_config(
    directory: Path, name: str, origin: str, listen: str, workers: int, nodes: Sequence[str]
) -> Path:
    folder = directory / f"conf-{name}"  # watched for its environment file: nothing else is written there
    folder.mkdir()
    (folder / "edgeproxy.env").touch()
    text = _SHARED_CONFIG.format(
        name=toml_value(f"demo-{name}"),
        workers=workers,
        runtime_dir=toml_value(str(directory / f"run-{name}")),
        listen=toml_value(listen),
        origin=toml_value(origin),
        key_host=toml_value(HOST),
        nodes=toml_value(list(nodes)),
        access_log=toml_value(str(directory / f"access-{name}.log")),
    )
    path = folder / "edgeproxy.toml"
    path.write_text(text, encoding="utf-8")
    return path
