"""The embedded store: stored responses in LMDB, shared by a host's workers and kept over restarts."""

from edgeproxy.cache.embedded.files import StoreError
from edgeproxy.cache.embedded.prepare import finish, prepare
from edgeproxy.cache.embedded.store import EmbeddedStore
from edgeproxy.cache.embedded.sweeper import Sweeper

__all__ = ["EmbeddedStore", "StoreError", "Sweeper", "finish", "prepare"]
