"""Loopback ports that are free just now."""

import socket


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on; another program may still take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


if __name__ == "__main__":
    print(free_port())
