"""`flow.metadata["edge"]` by itself: what it tells, what may be decided, and that a slip of the pen is an error."""

import copy
import json
import math
from typing import Any

import pytest
from mitmproxy.io import tnetstring

from edgeproxy.cache.key import extra_parts
from edgeproxy.scripting.edge import DECIDED, TOLD, Decisions, Edge
from tests.proxy.builders import an_exchange


def an_edge(**told: Any) -> Edge:
    return Edge({"trace_id": "0" * 31 + "1", "client": "192.0.2.7", "node": "edge-1", **told})


def test_what_is_told_is_there_from_the_beginning_but_for_the_response() -> None:
    exchange = an_exchange((b"tracestate", b"a=1"), (b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"))
    edge = Edge.of(exchange.trace, "192.0.2.7", "edge-1")
    assert edge["trace_id"] == "1" * 32
    assert edge["parent_id"] == "2" * 16
    assert edge["traceparent"] == f"00-{'1' * 32}-{edge['span_id']}-01"
    assert (edge["tracestate"], edge["sampled"]) == ("a=1", True)
    assert (edge["client"], edge["node"]) == ("192.0.2.7", "edge-1")
    assert edge["request_id"] == exchange.trace.request_id
    assert [edge[name] for name in ("cache", "age", "ttl_left", "origin")] == [None] * 4


def test_what_is_told_lacks_what_a_request_without_a_parent_lacks() -> None:
    edge = Edge.of(an_exchange(tracing=False).trace, "", "")
    assert (edge["parent_id"], edge["tracestate"], edge["sampled"]) == (None, None, False)


def test_what_is_told_is_completed_by_the_response() -> None:
    edge = an_edge()
    edge.tell(cache="HIT", age=3, ttl_left=7, origin="app")
    assert (edge["cache"], edge["age"], edge["ttl_left"], edge["origin"]) == ("HIT", 3, 7, "app")


@pytest.mark.parametrize("name", TOLD)
def test_what_is_told_is_not_a_scripts_to_set(name: str) -> None:
    edge = an_edge()
    with pytest.raises(KeyError, match="not a script's to set; key, ttl, bypass, tags, log are"):
        edge[name] = "x"


VALID = [
    ("key", {}),
    ("key", {"variant": "a"}),
    ("key", {"k": ""}),
    ("ttl", None),
    ("ttl", 0),
    ("ttl", 0.25),
    ("ttl", 10 * 365 * 86400),
    ("ttl", {}),
    ("ttl", {404: 5, 200: 0.5}),
    ("bypass", True),
    ("bypass", False),
    ("tags", []),
    ("tags", ("a", "b:c", "ä", "x" * 1024)),
    ("log", {}),
    ("log", {"any": b"thing", 5: None}),
]
WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("ttl_", 5, KeyError, "'ttl_' is not a script's to set"),
    ("Key", {}, KeyError, "'Key' is not"),
    ("key", None, TypeError, "key is a dict"),
    ("key", "variant", TypeError, "key is a dict"),
    ("key", [("a", "b")], TypeError, "key is a dict"),
    ("key", {"a": 1}, TypeError, "both str"),
    ("key", {1: "a"}, TypeError, "both str"),
    ("key", {b"a": b"b"}, TypeError, "both str"),
    ("key", {"": "b"}, ValueError, "empty name"),
    ("ttl", -1, ValueError, "from 0 to"),
    ("ttl", -0.001, ValueError, "from 0 to"),
    ("ttl", 10 * 365 * 86400 + 1, ValueError, "from 0 to"),
    ("ttl", math.inf, ValueError, "from 0 to"),
    ("ttl", math.nan, ValueError, "from 0 to"),
    ("ttl", True, TypeError, "number of seconds"),
    ("ttl", "60", TypeError, "number of seconds"),
    ("ttl", [60], TypeError, "number of seconds"),
    ("ttl", {99: 1}, ValueError, "numbers from 100 to 599"),
    ("ttl", {600: 1}, ValueError, "numbers from 100 to 599"),
    ("ttl", {"404": 1}, ValueError, "numbers from 100 to 599"),
    ("ttl", {True: 1}, ValueError, "numbers from 100 to 599"),
    ("ttl", {404: None}, TypeError, "number of seconds"),
    ("ttl", {404: -1}, ValueError, "from 0 to"),
    ("bypass", 1, TypeError, "True or False"),
    ("bypass", None, TypeError, "True or False"),
    ("bypass", "yes", TypeError, "True or False"),
    ("tags", "a", TypeError, "list of str"),
    ("tags", None, TypeError, "list of str"),
    ("tags", {"a"}, TypeError, "list of str"),
    ("tags", [b"a"], TypeError, "list of str"),
    ("tags", [""], ValueError, "is no tag"),
    ("tags", ["a b"], ValueError, "is no tag"),
    ("tags", ["a,b"], ValueError, "is no tag"),
    ("tags", ["a\r\nX: y"], ValueError, "is no tag"),
    ("tags", ["\udc80"], ValueError, "is no tag"),
    ("tags", ["x" * 1025], ValueError, "is no tag"),
    ("tags", ["ä" * 513], ValueError, "is no tag"),
    ("log", None, TypeError, "log is a dict"),
    ("log", "text", TypeError, "log is a dict"),
    ("log", [("a", "b")], TypeError, "log is a dict"),
]


@pytest.mark.parametrize(("name", "value"), VALID, ids=repr)
def test_what_is_set_is_kept(name: str, value: Any) -> None:
    edge = an_edge()
    edge[name] = value
    assert edge[name] is value
    edge.decide()


@pytest.mark.parametrize(("name", "value", "error", "says"), WRONG, ids=lambda part: repr(part)[:40])
def test_what_is_set_is_refused_where_it_is_wrong(name: str, value: Any, error: type[Exception], says: str) -> None:
    edge = an_edge()
    before = dict(edge)
    with pytest.raises(error, match=says):
        edge[name] = value
    assert dict(edge) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda edge: edge.update({"ttl": "60"}),
        lambda edge: edge.update(ttl="60"),
        lambda edge: edge.__ior__({"ttl": "60"}),
        lambda edge: edge.setdefault("tll", 60),
        lambda edge: edge.pop("ttl"),
        lambda edge: edge.pop("nothing", None),
        lambda edge: edge.popitem(),
        lambda edge: edge.clear(),
        lambda edge: edge.__delitem__("ttl"),
    ],
    ids=["update", "update by name", "|=", "setdefault", "pop", "pop what is not there", "popitem", "clear", "del"],
)
def test_what_is_set_can_not_be_set_or_taken_away_by_the_back_door(change: Any) -> None:
    edge = an_edge()
    before = dict(edge)
    with pytest.raises((KeyError, TypeError)):
        change(edge)
    assert dict(edge) == before
    edge.decide()


def test_what_is_set_can_be_set_with_update_and_or() -> None:
    edge = an_edge()
    edge.update({"ttl": 60}, bypass=True)
    edge |= {"tags": ["a"]}
    assert isinstance(edge, Edge)
    assert (edge["ttl"], edge["bypass"], edge["tags"], edge.setdefault("ttl", 5)) == (60, True, ["a"], 60)


def test_what_is_decided_is_nothing_where_nothing_was_set() -> None:
    assert an_edge().decide() == Decisions()


def test_what_is_decided_is_what_was_set() -> None:
    edge = an_edge()
    edge.update(key={"b": "2", "a": "ä"}, ttl=0.5, bypass=True, tags=["x", "y"])
    assert edge.decide() == Decisions(
        key_parts=extra_parts([(b"a", "ä".encode()), (b"b", b"2")]),
        ttl_ns=500_000_000,
        bypass=True,
        tags=(b"x", b"y"),
    )


def test_what_is_decided_has_a_ttl_for_each_status() -> None:
    edge = an_edge()
    edge["ttl"] = {404: 2, 503: 0}
    decided = edge.decide()
    assert (decided.ttl_ns, decided.status_ttl_ns) == (None, {404: 2_000_000_000, 503: 0})


def test_what_is_decided_does_not_depend_on_the_order_of_a_keys_parts() -> None:
    parts = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}]
    one, other = (an_edge(), an_edge())
    one["key"], other["key"] = parts
    assert one.decide() == other.decide()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "b"}, {"ab": ""}),
        ({"a": "1;s:b=1:2"}, {"a": "1", "b": "2"}),
        ({"a": ""}, {}),
        ({"a": "\udc80"}, {"a": "\\udc80"}),
        ({"a": "\udc80"}, {"a": "\x80"}),
        ({"a": "1:b"}, {"a:1": "b"}),
    ],
)
def test_what_is_decided_has_another_key_for_other_parts(one: dict[str, str], other: dict[str, str]) -> None:
    keys = []
    for parts in (one, other):
        edge = an_edge()
        edge["key"] = parts
        keys.append(edge.decide().key_parts)
    assert keys[0] != keys[1]


def test_what_is_decided_is_changed_in_place_too() -> None:
    edge = an_edge()
    edge["key"]["lang"] = "de"
    edge["tags"].append("x")
    assert edge.decide() == Decisions(key_parts=extra_parts([(b"lang", b"de")]), tags=(b"x",))


@pytest.mark.parametrize(
    "change",
    [
        lambda edge: edge["key"].update(a=1),
        lambda edge: edge["tags"].append("a b"),
        lambda edge: edge["tags"].append(5),
    ],
    ids=["key", "tags", "tags' type"],
)
def test_what_is_decided_is_an_error_where_it_was_made_wrong_in_place(change: Any) -> None:
    edge = an_edge()
    change(edge)
    with pytest.raises((TypeError, ValueError)):
        edge.decide()


@pytest.mark.parametrize("name", DECIDED)
def test_what_is_decided_is_final(name: str) -> None:
    edge = an_edge()
    value = edge[name]
    edge.decide()
    with pytest.raises(ValueError, match="too late: the cache has been asked; set it in requestheaders or request"):
        edge[name] = value
    with pytest.raises(ValueError, match="too late"):
        edge.update({name: value})
    edge["log"] = {"still": "open"}


def test_copies_are_edges_that_have_their_own_values() -> None:
    edge = an_edge()
    edge["key"] = {"a": "1"}
    other = copy.deepcopy(edge)
    other["key"]["b"] = "2"
    assert isinstance(other, Edge)
    assert edge["key"] == {"a": "1"}


def test_copies_of_one_that_is_decided_are_decided() -> None:
    edge = an_edge()
    edge.decide()
    with pytest.raises(ValueError, match="too late"):
        copy.deepcopy(edge)["ttl"] = 5


def test_copies_are_saved_as_mitmproxy_saves_them() -> None:
    edge = an_edge(sampled=True, parent_id=None)
    edge.update(ttl=5, tags=["a"], key={"a": "b"})
    loaded = tnetstring.loads(tnetstring.dumps({"edge": edge}))["edge"]
    assert (loaded["ttl"], loaded["tags"], loaded["key"]) == (5, ["a"], {"a": "b"})


def test_the_log_has_text_of_everything() -> None:
    edge = an_edge()
    edge["log"] = {"n": 5, "none": None, 7: b"x", "text": "ä\n"}
    assert edge.logged() == {"n": "5", "none": "None", "7": "b'x'", "text": "ä\n"}


def test_the_log_has_a_bound() -> None:
    edge = an_edge()
    edge["log"] = {f"{n:04}" + "k" * 2000: "v" * 2000 for n in range(100)}
    logged = edge.logged()
    assert len(logged) == 32
    assert {len(text) for pair in logged.items() for text in pair} == {1024}


def test_the_log_is_json_whatever_it_is_given() -> None:
    edge = an_edge()
    edge["log"] = {"\udc80": "\ud800", "nul": "\x00", "emoji": "\U0001f600" * 2000}
    json.dumps(edge.logged()).encode()


def test_the_log_is_there_although_a_value_can_not_say_what_it_is() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    edge = an_edge()
    edge["log"] = {"before": 1, "mute": Mute(), "behind": 2}
    logged = edge.logged()
    assert (logged["before"], logged["behind"]) == ("1", "2")


@pytest.mark.parametrize("log", [None, [], "text"])
def test_the_log_is_empty_where_it_was_made_no_dict(log: Any) -> None:
    edge = an_edge()
    dict.__setitem__(edge, "log", log)
    assert edge.logged() == {}
