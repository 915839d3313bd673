"""Whose trace context is continued."""

import pytest

from edgeproxy.tracing import TrustPolicy

V4 = ["10.0.0.0/8", "192.0.2.7"]
V6 = ["2001:db8::/32", "fe80::/10", "::1"]
MAPPED = ["::ffff:10.0.0.0/104"]


@pytest.mark.parametrize("ip", ["10.0.0.1", "2001:db8::1", "", "not an address"])
def test_all_trusts_anyone_and_none_no_one(ip: str) -> None:
    assert TrustPolicy("all").trusts(ip)
    assert not TrustPolicy("none").trusts(ip)
    assert not TrustPolicy([]).trusts(ip)


@pytest.mark.parametrize(
    ("networks", "ip", "trusted"),
    [
        (V4, "10.0.0.1", True),
        (V4, "10.255.255.255", True),
        (V4, "11.0.0.0", False),
        (V4, "9.255.255.255", False),
        (V4, "192.0.2.7", True),
        (V4, "192.0.2.8", False),
        (V4, "::ffff:10.0.0.1", True),
        (V4, "::FFFF:A00:1", True),
        (V4, "::ffff:11.0.0.1", False),
        (V4, "::10.0.0.1", False),  # IPv4-compatible, not IPv4-mapped
        (V4, "a00::1", False),
        (V6, "2001:db8:ffff::1", True),
        (V6, "2001:db9::1", False),
        (V6, "::1", True),
        (V6, "::2", False),
        (V6, "fe80::1", True),
        (V6, "fe80::1%eth0", True),
        (V6, "fe80::1%7", True),
        (V4, "::ffff:10.0.0.1%eth0", True),
        (V4, "10.0.0.1%eth0", False),  # IPv4 has no zones
        (V6, "fec0::1%eth0", False),
        (V6, "0.0.0.1", False),
        (MAPPED, "10.1.2.3", True),
        (MAPPED, "::ffff:10.1.2.3", True),
        (MAPPED, "11.1.2.3", False),
        (["0.0.0.0/0"], "203.0.113.9", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "2001:db8::1", True),
        (["::/0"], "203.0.113.9", False),
        (V4 + V6, "2001:db8::1", True),
        (V4 + V6, "10.0.0.1", True),
    ],
)
def test_a_list_trusts_the_peers_within_its_networks(networks: list[str], ip: str, trusted: bool) -> None:
    assert TrustPolicy(networks).trusts(ip) is trusted


@pytest.mark.parametrize(
    "ip", ["", "unix:", "10.0.0", "10.0.0.1.2", "010.0.0.1", "localhost", "10.0.0.1:80", "[::1]", "\0"]
)
def test_what_is_no_address_is_not_in_any_network(ip: str) -> None:
    assert not TrustPolicy(["0.0.0.0/0", "::/0"]).trusts(ip)


@pytest.mark.parametrize(
    "trust", ["", "ALL", "10.0.0.0/8", ["all"], ["10.1.2.3/8"], ["10.0.0.0/33"], ["fe80::%eth0/10"], [""]]
)
def test_a_policy_that_is_not_clear_is_refused(trust: str | list[str]) -> None:
    with pytest.raises(ValueError):
        TrustPolicy(trust)
