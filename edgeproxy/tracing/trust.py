"""Whose trace context is continued.

Knows: addresses and networks. Must not: know headers or traces. Asked once a connection, so it may parse.
"""

import ipaddress
from collections.abc import Sequence
from typing import Literal

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class TrustPolicy:
    """All peers, none, or those in a list of networks ("10.0.0.0/8", "2001:db8::/32", a single address)."""

    __slots__ = ("_everyone", "_networks")

    def __init__(self, trust: Literal["all", "none"] | Sequence[str]) -> None:
        self._everyone = trust == "all"
        self._networks = [] if isinstance(trust, str) else [_network(cidr) for cidr in trust]
        if isinstance(trust, str) and trust not in ("all", "none"):
            raise ValueError(f"trust = {trust!r}: must be \"all\", \"none\" or a list of networks")

    def trusts(self, ip: str) -> bool:
        """Is the peer at this address trusted? Text that is no address is trusted only where all are."""
        if self._everyone:
            return True
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(ip.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address.version == network.version and address in network for network in self._networks)


def _network(cidr: str) -> _Network:
    network = ipaddress.ip_network(cidr)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        ipv4 = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((ipv4, network.prefixlen - _MAPPED.prefixlen))
    return network
