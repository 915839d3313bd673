"""The tracing toggle: an environment file that the node watches. Two real workers; what each of them does is asked."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.node.status import WorkerStatus
from edgeproxy.tracing.recorded import decode
from edgeproxy.tracing.spans import spans_of
from tests.node.load import Load
from tests.node.test_supervisor import events
from tests.support import Node, Origin, OtlpReceiver, until

PROMPT_S = 1.0
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Origin() as origin, Node(origin.url, workers=2) as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """A node whose environment file says nothing."""
    shared.env_file.unlink(missing_ok=True)
    until(lambda: all_trace(shared) and not shared.status().last_error, "tracing to be on")
    yield shared
    shared.env_file.unlink(missing_ok=True)


def workers(node: Node) -> list[WorkerStatus]:
    return [worker for worker in node.status().workers if worker.state == "serving"]


def all_trace(node: Node) -> bool:
    found = workers(node)
    return len(found) == 2 and all(worker.confirmed and worker.tracing for worker in found)


def none_traces(node: Node) -> bool:
    found = workers(node)
    return len(found) == 2 and all(worker.confirmed and not worker.tracing for worker in found)


def written(path: Path, text: str) -> None:
    path.write_text(text)


def replaced(path: Path, text: str) -> None:
    new = path.with_name("new.env")
    new.write_text(text)
    new.replace(path)


def linked(path: Path, text: str) -> None:
    target = path.with_name("target.env")
    target.write_text(text)
    link = path.with_name("link.env")
    link.symlink_to(target)
    link.replace(path)


class TestTheFile:
    @pytest.mark.parametrize("edit", [written, replaced, linked])
    @pytest.mark.parametrize(
        "text",
        [
            "EDGEPROXY_TRACING=off\n",
            "OTEL_TRACES_EXPORTER=none\n",
            "EDGEPROXY_TRACING=on\nOTEL_TRACES_EXPORTER=none\n",
            '# for now\nexport EDGEPROXY_TRACING="off"',
        ],
        ids=["off", "no-exporter", "no-exporter-wins", "quoted"],
    )
    def test_says_off_and_every_worker_follows_within_a_second(
        self, node: Node, edit: Callable[[Path, str], None], text: str
    ) -> None:
        edit(node.env_file, text)
        until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)

    def test_says_on_again(self, node: Node) -> None:
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)
        written(node.env_file, "EDGEPROXY_TRACING=on\n")
        until(lambda: all_trace(node), "tracing to be on", timeout=PROMPT_S)

    def test_removed_takes_it_back_to_the_default(self, node: Node) -> None:
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)
        node.env_file.unlink()
        until(lambda: all_trace(node), "tracing to be on", timeout=PROMPT_S)

    def test_names_sampler_and_ratio(self, node: Node) -> None:
        written(node.env_file, "OTEL_TRACES_SAMPLER=traceidratio\nOTEL_TRACES_SAMPLER_ARG=0.25\n")
        until(lambda: node.status().tracing.ratio == 0.25, "the ratio", timeout=PROMPT_S)
        assert node.status().tracing.sampler == "traceidratio"

    def test_changed_without_effect_makes_no_new_epoch(self, node: Node) -> None:
        before = node.status().tracing.epoch
        written(node.env_file, "SOMETHING=else\n")
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off")
        assert node.status().tracing.epoch == before + 1

    def test_is_read_on_sighup_too(self, node: Node) -> None:
        os.kill(node.supervisor_pid, signal.SIGSTOP)
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        node.signal(signal.SIGHUP)
        os.kill(node.supervisor_pid, signal.SIGCONT)
        until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)
        assert node.status().generation == 1

    def test_takes_effect_within_a_second_on_a_busy_node(self, node: Node) -> None:
        with Load(node.port, keep_alive=True) as load:
            for text, done in (("off", none_traces), ("on", all_trace)) * 3:
                written(node.env_file, f"EDGEPROXY_TRACING={text}\n")
                begun = time.monotonic()
                until(lambda done=done: done(node), text)
                assert time.monotonic() - begun < PROMPT_S
        assert not load.failures


class TestOff:
    def test_ids_are_still_minted_and_nothing_is_sampled(self, node: Node) -> None:
        with node.connect() as client:
            assert client.get("/")["traceresponse"].endswith("-03")
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off")
        with node.connect() as client:
            response = client.get("/")
        assert len(response.trace_id) == 32
        assert node.record(response.trace_id)["sampled"] is False

    def test_a_clients_traceparent_goes_through_byte_for_byte(self, node: Node) -> None:
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off")
        with node.connect() as client:
            for parent in (PARENT, UNPARENT):
                assert f"traceparent: {parent}".encode() in client.get("/", f"traceparent: {parent}").body

    def test_it_holds_for_a_connection_that_was_open_before(self, node: Node) -> None:
        with node.connect() as client:
            assert PARENT.encode() not in client.get("/", f"traceparent: {PARENT}").body
            written(node.env_file, "EDGEPROXY_TRACING=off\n")
            until(lambda: none_traces(node), "tracing to be off")
            assert PARENT.encode() in client.get("/", f"traceparent: {PARENT}").body

    def test_no_request_is_dropped_while_it_is_switched(self, node: Node) -> None:
        with Load(node.port) as new, Load(node.port, keep_alive=True) as kept:
            for text, done in (("off", none_traces), ("on", all_trace)) * 5:
                written(node.env_file, f"EDGEPROXY_TRACING={text}\n")
                until(lambda done=done: done(node), f"tracing to be {text}")
                new.more(20)
                kept.more(20)
        assert (new.failures, kept.failures) == ([], [])


class TestABrokenFile:
    @pytest.mark.parametrize(
        "text",
        [
            "EDGEPROXY_TRACING=perhaps\n",
            "this is no assignment\n",
            'EDGEPROXY_TRACING="off\n',
            "OTEL_TRACES_SAMPLER_ARG=2",
        ],
        ids=["value", "syntax", "quote", "range"],
    )
    def test_changes_nothing_and_is_reported(self, node: Node, text: str) -> None:
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off")
        before = node.status()
        reported = len(events(node, "environment_refused"))
        written(node.env_file, text)
        until(lambda: node.status().last_error, "the error to show", timeout=PROMPT_S)
        after = node.status()
        assert none_traces(node)
        assert after.tracing == before.tracing
        assert after.refused > before.refused
        assert f"{node.env_file}:1" in after.last_error
        assert len(events(node, "environment_refused")) > reported

    def test_shows_in_what_the_commands_say(self, node: Node) -> None:
        written(node.env_file, "EDGEPROXY_TRACING=perhaps\n")
        until(lambda: node.status().last_error, "the error to show")
        assert f"{node.env_file}:1" in node.command("status").stdout.replace("\n", "")
        assert f"{node.env_file}:1" in node.command("trace", "status").stdout

    def test_is_settled_by_a_good_one(self, node: Node) -> None:
        written(node.env_file, "EDGEPROXY_TRACING=perhaps\n")
        until(lambda: node.status().last_error, "the error to show")
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node) and not node.status().last_error, "it to be settled", timeout=PROMPT_S)

    def test_may_come_and_go_with_its_directory(self, start_node: Callable[..., Node], tmp_path: Path) -> None:
        folder = tmp_path / "conf"
        node = start_node(workers=2, environ={"EDGEPROXY_ENV_FILE": str(folder / "env")})
        folder.mkdir()
        folder.rmdir()
        folder.mkdir()
        written(folder / "env", "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)


class TestTheEnvironment:
    def test_a_line_that_systemd_passed_on_goes_with_its_line(self, start_node: Callable[..., Node]) -> None:
        """EnvironmentFile puts the file into the process's environment; removing the line must still switch."""
        node = start_node(workers=2)
        node.stop()
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        node = _restarted(node, {"EDGEPROXY_TRACING": "off"})
        until(lambda: none_traces(node), "tracing to be off")
        written(node.env_file, "\n")
        until(lambda: all_trace(node), "tracing to be on", timeout=PROMPT_S)

    def test_a_variable_of_the_process_holds_until_the_file_says_otherwise(
        self, start_node: Callable[..., Node]
    ) -> None:
        node = start_node(workers=2, environ={"EDGEPROXY_TRACING": "off"})
        assert none_traces(node)
        written(node.env_file, "EDGEPROXY_TRACING=on\n")
        until(lambda: all_trace(node), "tracing to be on", timeout=PROMPT_S)
        node.env_file.unlink()
        until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)

    def test_a_replaced_worker_starts_with_what_holds(self, start_node: Callable[..., Node]) -> None:
        node = start_node(workers=2)
        written(node.env_file, "EDGEPROXY_TRACING=off\n")
        until(lambda: none_traces(node), "tracing to be off")
        node.kill_worker(0)
        assert none_traces(node)


def test_it_does_not_wait_for_a_reload_that_takes_its_time(start_node: Callable[..., Node]) -> None:
    node = start_node(workers=2)
    scribe = node.scribe_pid
    os.kill(scribe, signal.SIGSTOP)  # the reload waits for the scribe to end
    node.write_config(limits={"headers": 50})
    node.signal(signal.SIGHUP)
    until(lambda: node.status().generation == 2, "the new generation")
    written(node.env_file, "EDGEPROXY_TRACING=off\n")
    until(lambda: none_traces(node), "tracing to be off", timeout=PROMPT_S)
    assert node.status().state == "reloading"
    os.kill(scribe, signal.SIGCONT)
    until(lambda: node.status().state == "running", "the reload to be done")
    assert not node.status().tracing.enabled


def _restarted(node: Node, environ: dict[str, str]) -> Node:
    node._environ.update(environ)
    return node.start()


OFF_AND_ON = (
    ("EDGEPROXY_TRACING=off", "EDGEPROXY_TRACING=on"),
    ("OTEL_SDK_DISABLED=true", "OTEL_SDK_DISABLED=false"),
    ("OTEL_TRACES_EXPORTER=none", "OTEL_TRACES_EXPORTER=otlp"),
)
SWITCHES = 48


def log_of(node: Node) -> list[bytes]:
    return node.access_log.read_bytes().splitlines()


def test_many_switches_under_load_fail_no_request_and_halve_no_trace() -> None:
    """What a request began with holds for all of it: flags, record and spans say the same, wherever the switch came."""
    batch = {"queue_size": 1_000_000, "delay": 0.05}
    tracing = {"ratio": 0.2, "exporters": "otlp", "batch": batch}
    with (
        Origin() as origin,
        OtlpReceiver() as receiver,
        Node(origin.url, workers=2, tracing={**tracing, "otlp_endpoint": receiver.url}) as node,
    ):
        with Load(node.port, keep_alive=True) as kept, Load(node.port) as new:
            for number in range(SWITCHES):
                written(node.env_file, OFF_AND_ON[number // 2 % 3][number % 2] + "\n")
                until(lambda on=number % 2: (all_trace if on else none_traces)(node), f"switch {number}", timeout=5)
            assert node.status().tracing.epoch == SWITCHES + 1
        assert (kept.failures, new.failures) == ([], [])
        until(lambda: len(log_of(node)) >= kept.answered + new.answered, "every line")
        records = {record.trace_id: record for record in map(decode, log_of(node))}
        wanted = {span.span_id for record in records.values() if record.exported for span in spans_of(record)}
        flags = {sent[1]: sent[3] for request in origin.requests if (sent := request["traceparent"].split("-"))}
        assert {record.sampling for record in records.values()} == {"ratio", "off"}
        for record in (records[trace_id] for trace_id in flags):
            assert record.exported == record.sampled == (flags[record.trace_id] == "03")
            assert (record.sampling == "off") == (flags[record.trace_id] == "00")
        assert {span.span_id for span in receiver.until_spans(len(wanted))} == wanted
