"""Whose trace context is continued.

May know: addresses and networks. Must not: know headers or traces. It is asked once a connection, so it may take the
time to parse.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

_IPV4_MAPPED = IPv6Network("::ffff:0:0/96")


class TrustPolicy:
    """Trusts all peers, none, or those in a list of networks: "10.0.0.0/8", "2001:db8::/32", a single address.

    A network with bits set beyond its prefix raises ValueError, as does what is no network: where it decides on trust,
    what an operator meant by "10.1.2.3/8" is not guessed.
    """

    __slots__ = ("_everyone", "_networks")

    def __init__(self, trust: Literal["all", "none"] | Sequence[str]) -> None:
        if isinstance(trust, str) and trust not in ("all", "none"):
            raise ValueError(f'{trust!r} is no trust: allowed are "all", "none" or a list of networks')
        self._everyone = trust == "all"
        self._networks = [] if isinstance(trust, str) else [_network(cidr) for cidr in trust]

    def trusts(self, ip: str) -> bool:
        """Whether the peer at this address is trusted. What is no address is trusted only if all are."""
        if self._everyone:
            return True
        if not self._networks:
            return False
        try:
            address = _address(ip)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address:
    """The address, as IPv4 where it is that in IPv6's clothes (`::ffff:10.0.0.1`). A zone (`fe80::1%eth0`) may stay:
    networks compare without it.
    """
    address = ip_address(text)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _network(text: str) -> IPv4Network | IPv6Network:
    if "%" in text:
        raise ValueError(f"{text!r} names a zone: a network is trusted on every interface or not at all")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        ipv4 = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((ipv4, network.prefixlen - _IPV4_MAPPED.prefixlen))
    return network
