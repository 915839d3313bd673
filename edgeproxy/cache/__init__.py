"""The cache: what may be stored and reused (`policy`), under which key, and where it is kept (`tiers`)."""

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.filling import Filling
from edgeproxy.cache.key import primary_key, variant
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.purge import Kind, Purge, purge_request, tags_of
from edgeproxy.cache.rules import Rules
from edgeproxy.cache.stored import Stored

__all__ = [
    "Entry",
    "Filling",
    "HotMemory",
    "Kind",
    "Purge",
    "Rules",
    "Stored",
    "primary_key",
    "purge_request",
    "tags_of",
    "variant",
]
