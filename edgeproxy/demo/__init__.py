"""The demo's origin: a small site behind the edge, run by `edgeproxy demo` in a process of its own."""
