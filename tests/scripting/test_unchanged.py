"""Who has the response already gets a 304 at once, and the cache the body: scripts change nothing of that."""

import pytest

from tests.scripting.builders import Site
from tests.support import chunked, reply

SCRIPT = """
    import asyncio

    class Sync:
        edge_filter = "~u /sync"

        def responseheaders(self, flow): flow.response.headers["X-Seen"] = "head"
        def response(self, flow): flow.response.headers["X-Seen"] += ", body"


    class Async(Sync):
        edge_filter = "~u /async"

        async def response(self, flow):
            await asyncio.sleep(0)
            super().response(flow)


    addons = [Sync(), Async()]
"""
TABLES = {"cache": {"store": "memory"}}
FIELDS = ("Cache-Control: max-age=60", 'ETag: "a"')


@pytest.mark.parametrize("condition", ['If-None-Match: "a"', "If-None-Match: *"])
@pytest.mark.parametrize("hook", ["sync", "async"])
@pytest.mark.parametrize("size", [0, 785, 3_000_000])
def test_a_304_leaves_the_body_to_the_cache(site: Site, hook: str, size: int, condition: str) -> None:
    path = f"/{hook}/{size}/{'any' if '*' in condition else 'one'}"
    site.origin.on(path, reply(b"x" * size, *FIELDS))
    first = site.get(path, condition)
    assert (first.status, first["x-cache"], first["x-seen"]) == (304, "MISS", "head, body")
    second = site.get(path)
    assert (second.status, len(second.body)) == (200, size)
    assert second["x-cache"] in {"HIT", "COLLAPSED"}  # which of them, the machine decides
    assert len(site.origin.seen(path)) == 1


@pytest.mark.parametrize("hook", ["sync", "async"])
def test_a_304_in_place_of_what_has_expired_leaves_the_body_to_the_cache(site: Site, hook: str) -> None:
    path = f"/{hook}/expired"
    site.origin.on(path, reply(b"old", "Cache-Control: max-age=0", 'ETag: "old"'))
    site.get(path)
    site.origin.on(path, chunked(b"ne", b"w", fields=FIELDS))
    assert site.get(path, 'If-None-Match: "a"').status == 304
    third = site.get(path)
    assert third.body == b"new"
    assert third["x-cache"] in {"HIT", "COLLAPSED"}
