import pytest

from bench.errors import BenchError
from bench.load import Other, parse_wrk, wrk_command

OUTPUT = """Running 5s test @ http://127.0.0.1:8080/hit/785
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   607.35us    0.93ms  17.30ms   93.42%
    Req/Sec    71.23k     6.45k   79.62k    82.35%
  361342 requests in 5.10s, 373.89MB read
  Socket errors: connect 0, read 3, write 0, timeout 2
  Non-2xx or 3xx responses: 7
Requests/sec:  70852.44
Transfer/sec:     73.31MB

WRK {"requests":361342,"duration_us":5100000,"bytes":392052264,"connect":0,"read":3,"write":0,"status":7,"timeout":2,\
"latency_us":{"p50":402,"p90":900,"p99":4521,"p99.9":9000,"max":17300}}
"""


def test_figures_come_from_the_line_that_is_not_rounded() -> None:
    load = parse_wrk(OUTPUT)
    assert (load.requests, load.seconds, load.bytes) == (361342, 5.1, 392052264)
    assert load.rate == pytest.approx(361342 / 5.1)
    assert load.latency_ms["p99"] == 4.521


def test_bad_statuses_and_broken_connections_have_failed_and_late_answers_have_timed_out() -> None:
    load = parse_wrk(OUTPUT)
    assert load.failed == 7 + 3
    assert load.timed_out == 2


def test_a_wrk_that_could_not_start_is_an_error_with_its_own_words() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_wrk_runs_whole_seconds_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.find_tool", lambda name, _package: name)
    command = " ".join(wrk_command("http://127.0.0.1:1/", 0.3, 32, 1))
    assert command.startswith("taskset --cpu-list 1 wrk -t1 -c32 -d1s ")


def test_wrk_sends_the_fields_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.find_tool", lambda name, _package: name)
    command = wrk_command("http://127.0.0.1:1/", 1, 1, 1, {"If-None-Match": '"a b"'})
    assert command[-3:] == ("-H", 'If-None-Match: "a b"', "http://127.0.0.1:1/")


def test_wrk_is_told_of_the_other_path_and_of_which_requests_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.find_tool", lambda name, _package: name)
    command = wrk_command("http://127.0.0.1:1/", 1, 1, 1, other=Other("/other", every=100))
    assert command[-4:] == ("http://127.0.0.1:1/", "--", "/other", "100")
    assert command[command.index("-s") + 1].endswith("/mixed.lua")
