"""How the cluster is reached: addresses, credentials, TLS. What the configuration says, made ready for use."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from edgeproxy.cache.redis.commands import Command, command
from edgeproxy.config import RedisCache
from edgeproxy.config.checks import split_address

PASSWORD_VARIABLE = "EDGEPROXY_REDIS_PASSWORD"  # noqa: S105 the variable's name
CONNECT_TIMEOUT_S = 1.0
"""How long a connection may take to be made, in the background; no request waits for it."""


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`host:port` or `[ipv6]:port`, brackets or not. Raises ValueError."""
        if text.count(":") > 1 and not text.startswith("["):  # as Redis writes IPv6 in redirections
            host, _, port = text.rpartition(":")
            return cls(host, int(port))
        return cls(*split_address(text))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Access:
    """The way into one cluster."""

    def __init__(self, config: RedisCache, environ: Mapping[str, str] = os.environ) -> None:
        """Read the password and the certificates. Raises OSError, ssl.SSLError or ValueError when they can't be had."""
        self.addresses = [Address.parse(one) for one in config.nodes]
        self.username = config.username
        self._password = _password(config, environ)
        self._config = config
        self.tls = _context(config) if config.tls else None

    def greeting(self, name: str) -> Command:
        """The first command on a connection: RESP3, who is there, and in whose name."""
        words: list[str] = ["HELLO", "3"]
        if self.username or self._password:  # a user may need none
            words += ["AUTH", self.username or "default", self._password]
        return command(*words, "SETNAME", name)

    def client_arguments(self) -> dict[str, Any]:
        """The same for redis-py's clients."""
        config = self._config
        arguments: dict[str, Any] = {
            "username": self.username or None,
            "password": self._password or None,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": CONNECT_TIMEOUT_S,
            "require_full_coverage": False,
        }
        if config.tls:
            arguments |= {
                "ssl": True,
                "ssl_ca_certs": config.tls_ca_file or None,
                "ssl_certfile": config.tls_cert_file or None,
                "ssl_keyfile": config.tls_key_file or None,
                "ssl_check_hostname": config.tls_check_host,
            }
        return arguments


def _password(config: RedisCache, environ: Mapping[str, str]) -> str:
    if config.password:
        return config.password
    if config.password_file:
        return Path(config.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    return environ.get(PASSWORD_VARIABLE, "")


def _context(config: RedisCache) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.tls_ca_file or None)
    context.check_hostname = config.tls_check_host
    if config.tls_cert_file:
        context.load_cert_chain(config.tls_cert_file, config.tls_key_file or None)
    return context
