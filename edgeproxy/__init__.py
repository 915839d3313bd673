"""edgeproxy: a caching reverse proxy that accounts for every request exactly once."""

__version__ = "0.1.0"
