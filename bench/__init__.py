"""Measures edgeproxy beside nginx with Lua, Varnish and stock mitmproxy: `python -m bench`, see docs/performance.md."""
