"""The cache: what may be stored and reused (`policy`), under which key, and the worker's hot memory that keeps it."""

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import primary_key
from edgeproxy.cache.memory import HotMemory

__all__ = ["Entry", "HotMemory", "primary_key"]
