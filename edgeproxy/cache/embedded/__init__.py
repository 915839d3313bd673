"""The embedded store: stored responses in LMDB, shared by a host's workers and kept over restarts."""

from edgeproxy.cache.embedded.files import StoreError, finish, prepare
from edgeproxy.cache.embedded.store import EmbeddedStore

__all__ = ["EmbeddedStore", "StoreError", "finish", "prepare"]
