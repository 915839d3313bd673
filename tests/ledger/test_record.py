"""The record of a request that was lost with its worker, made from what its slot held."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.ledger import FIELDS, Stage
from edgeproxy.ledger.record import known_fields, lost_line, markdown_table, seq_of
from tests.ledger.parts import ROOT, prefix, record, templates

NAMES = [field.name for field in FIELDS]
TS = datetime(2026, 3, 4, 5, 6, 7, 89012, tzinfo=UTC)
LATER = TS + timedelta(milliseconds=1500, microseconds=250)


def lost(text: bytes, seq: int = 9) -> dict[str, object]:
    line = lost_line(text, seq=seq, stage=Stage.CONNECT, worker=2, pid=4711, now=LATER)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    record = json.loads(line)
    assert isinstance(record, dict)
    assert list(record) == NAMES
    return record


def test_a_lost_request_keeps_what_was_known_of_it() -> None:
    kept = json.loads(record(9, 2))
    found = lost(prefix(9, 2))
    known = NAMES[: NAMES.index("protocol") + 1]
    assert {name: found[name] for name in known} == {name: kept[name] for name in known}


def test_a_lost_request_says_where_it_was_and_since_when() -> None:
    found = lost(prefix(9, 2))
    assert found["status"] is None
    assert found["attempts"] == []
    assert (found["outcome"], found["stage"], found["duration_ms"]) == ("lost", "connect", 1500.25)
    assert found["error"] == {
        "type": "worker_died",
        "message": "worker 2 (pid 4711) died while the request was in flight",
        "causes": [],
    }


def test_a_clock_that_went_back_makes_no_negative_duration() -> None:
    assert lost(prefix(9, ts="2030-01-01T00:00:00.000000Z"))["duration_ms"] == 0


@pytest.mark.parametrize("length", range(0, len(prefix(9, path='/"quoted\\"\u00e9')), 7))
def test_a_beginning_cut_anywhere_still_makes_a_line(length: int) -> None:
    text = prefix(9, path='/"quoted\\"\u00e9')[:length]
    found = lost(text)
    assert found["seq"] == 9
    for name, value in known_fields(text).items():
        if name not in ("worker", "seq"):
            assert found[name] == value


@given(st.binary(max_size=300))
def test_whatever_a_slot_holds_the_line_is_whole(text: bytes) -> None:
    lost(text)


@given(st.text(max_size=80))
def test_no_clients_text_forges_a_seq(text: str) -> None:
    line = record(17, path=text, query=text, host=text, user_agent=text)
    assert seq_of(line) == 17


def test_a_client_that_writes_a_seq_of_its_own_is_not_believed() -> None:
    assert seq_of(record(17, node='",seq":1,', path='/","seq":99,"x":"')) == 17
    assert seq_of(b"") is None


def test_the_documentation_has_the_fields_as_they_are() -> None:
    text = (ROOT / "docs/access-log.md").read_text()
    assert markdown_table() in text, "docs/access-log.md: put edgeproxy.ledger.record.markdown_table() there"


def test_every_field_has_its_sentence() -> None:
    for field in FIELDS:
        assert re.fullmatch(r"(string|number|boolean|array|object)( or null)?", field.kind), field
        assert field.meaning.endswith("."), field
        assert (Path(ROOT) / "docs").is_dir()


def test_the_quick_worker_of_these_tests_writes_the_same_records() -> None:
    text, line = templates(3)
    assert line % {b"seq": 77} == record(77, 3)
    assert text % {b"seq": 77} == prefix(77, 3)


TYPES = {"string": str, "number": (int, float), "boolean": bool, "array": list, "object": dict}


@pytest.mark.parametrize("text", [b"", b"{", prefix(9), prefix(9)[:100]], ids=["nothing", "brace", "whole", "cut"])
def test_a_lost_line_has_the_types_that_are_promised(text: bytes) -> None:
    found = lost(text)
    for field in FIELDS:
        value = found[field.name]
        if value is None:
            assert field.kind.endswith(" or null"), field
        else:
            assert isinstance(value, TYPES[field.kind.split()[0]]), field  # type: ignore[arg-type]
