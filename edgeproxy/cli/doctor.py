"""`edgeproxy doctor`: examines a running node for the places where trace data gets lost, and says what to do.

What it prints may come from origins and backends: nothing of it reaches the terminal but what can be printed.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec
from rich.console import Console
from rich.text import Text

from edgeproxy.cli.common import config_option, fail, find_node, runtime_dir_option
from edgeproxy.cli.tail import printable
from edgeproxy.config import SettingsError
from edgeproxy.doctor import UNCHECKED, Finding, Verdict, examine, exit_code, find_patient, worst
from edgeproxy.node import NodeError

WATCH_S = 2.0
_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.SKIPPED: "dim"}


@click.command()
@click.option(
    "--echo",
    metavar="PATH|URL",
    help="What the origin answers with the header fields of the request, as JSON or text; of a URL the host is asked "
    "for at this node.",
)
@click.option(
    "--watch",
    "watch_s",
    default=WATCH_S,
    show_default=True,
    type=click.FloatRange(0, 600),
    metavar="SECONDS",
    help="How long the exporters are watched.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for monitoring.")
@config_option
@runtime_dir_option
def doctor(echo: str | None, watch_s: float, as_json: bool, config_path: Path | None, runtime_dir: Path | None) -> None:
    """Examine a running node: is what is sampled exported, does the trace reach the origin, does the backend take it?

    Sends one request through the node to its origin, and one empty export to the backend; changes nothing.

    Exits as monitoring plugins do: 0 all is well, 1 there are warnings, 2 something fails, 3 nothing could be checked.
    """
    if echo is not None and not _is_echo(echo):
        raise click.BadParameter("a path that begins with a slash, or an http or https URL", param_hint="--echo")
    try:
        patient = find_patient(find_node(config_path, runtime_dir).path)
    except (NodeError, SettingsError, OSError) as error:
        fail(f"nothing could be checked: {error}", UNCHECKED)
    findings: list[Finding] = []
    console = Console(highlight=False)
    for finding in examine(patient, echo=echo, watch_s=watch_s):
        findings.append(finding)
        if not as_json:
            _show(finding, console)
    if as_json:
        click.echo(_json(findings))
    raise SystemExit(exit_code(findings))


def _is_echo(text: str) -> bool:
    """Whether it is a path or a URL that can stand in a request."""
    try:
        urlsplit(text)
    except ValueError:
        return False
    return text.startswith(("/", "http://", "https://")) and text.isascii() and text.isprintable() and " " not in text


def _show(finding: Finding, console: Console) -> None:
    line = Text.assemble(
        (f"{finding.verdict:<8}", _COLOURS[finding.verdict]),
        (f"{finding.check:<16}", "bold"),
        printable(finding.found),
    )
    console.print(line, soft_wrap=True)
    if finding.advice and finding.verdict is not Verdict.OK:
        console.print(Text(f"{'':<24}→ {printable(finding.advice)}", "dim"), soft_wrap=True)


def _json(findings: list[Finding]) -> str:
    """One object, of ASCII that can be printed: it may go to a terminal."""
    told = {
        "verdict": worst(finding.verdict for finding in findings),
        "exit_code": exit_code(findings),
        "checks": [msgspec.to_builtins(finding) for finding in findings],
    }
    return json.dumps(told, indent=2).replace("\x7f", "\\u007f")
