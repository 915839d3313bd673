"""Certificates for Redis servers and their clients, made when they are needed; nobody outside a test believes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme


@dataclass(frozen=True)
class RedisTls:
    """The files of one authority, of the servers' certificate and of a client's."""

    folder: Path
    mutual: bool
    """Whether the servers ask clients for a certificate."""

    @property
    def ca_file(self) -> Path:
        """The authority that has signed both certificates."""
        return self.folder / "ca.pem"

    @property
    def cert_file(self) -> Path:
        """The client's certificate."""
        return self.folder / "client.pem"

    @property
    def key_file(self) -> Path:
        """The client's key."""
        return self.folder / "client.key"

    def issue(self) -> None:
        """Write the files."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        for name in ("server", "client"):
            certificate = authority.issue_cert("127.0.0.1", "localhost", common_name=name)
            certificate.private_key_pem.write_to_path(self.folder / f"{name}.key")
            (chain,) = certificate.cert_chain_pems
            chain.write_to_path(self.folder / f"{name}.pem")

    def directives(self, port: int) -> dict[str, object]:
        """What a server is told: TLS for clients, replicas and the bus, and nothing beside it."""
        return {
            "port": 0,
            "tls-port": port,
            "tls-cluster": "yes",
            "tls-replication": "yes",
            "tls-auth-clients": "yes" if self.mutual else "no",
            "tls-ca-cert-file": self.ca_file,
            "tls-cert-file": self.folder / "server.pem",
            "tls-key-file": self.folder / "server.key",
        }

    def client_options(self) -> dict[str, Any]:
        """What a redis-py client is told."""
        believed = {"ssl": True, "ssl_ca_certs": str(self.ca_file)}
        shown = {"ssl_certfile": str(self.cert_file), "ssl_keyfile": str(self.key_file)}
        return {**believed, **shown} if self.mutual else believed
