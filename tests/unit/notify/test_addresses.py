"""Which addresses are connected to."""

from __future__ import annotations

import ipaddress
import socket
import threading

import pytest

from tussis.worker.notify.addresses import AddressPolicy, LookupFailed, Resolver, parse_networks

PUBLIC = AddressPolicy()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "239.1.2.3", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
        # IPv4 addresses inside IPv6 addresses: mapped, translated (NAT64), 6to4, Teredo.
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"),
        *("2002:c0a8:101::", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert "not public" in (PUBLIC.refusal(address, encrypted=True) or "")


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_allowed_with_tls_only(address: str) -> None:
    assert PUBLIC.refusal(address, encrypted=True) is None
    assert "use https://" in (PUBLIC.refusal(address, encrypted=False) or "")


def test_only_the_networks_that_are_named_are_allowed() -> None:
    policy = AddressPolicy(parse_networks(("10.1.0.0/16", "fd00::/8", "203.0.113.7")))
    for allowed in ("10.1.2.3", "fd00::5", "203.0.113.7", "::ffff:10.1.2.3"):
        assert policy.refusal(allowed, encrypted=False) is None, allowed
    for refused in ("10.2.0.1", "127.0.0.1", "203.0.113.8", "::1", "::ffff:10.2.0.1"):
        assert policy.refusal(refused, encrypted=True) is not None, refused
    with pytest.raises(ValueError, match="host bits"):
        parse_networks(("10.1.2.3/16",))


def test_no_private_network_is_public_at_its_edges() -> None:
    """The first and the last address of the special networks (RFC 6890)."""
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"):
        network = ipaddress.ip_network(text)
        for address in (network[0], network[-1]):
            assert PUBLIC.refusal(str(address), encrypted=True) is not None


def test_a_name_server_that_hangs_occupies_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    over, asked = threading.Event(), []

    def hang(*arguments: object, **options: object) -> list[object]:
        asked.append(arguments)
        over.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = Resolver("example.org", 443)
    for _ in range(3):
        with pytest.raises(LookupFailed, match="did not answer"):
            resolver.addresses(0.02)
    assert len(asked) == 1
    over.set()
    assert [address.host for address in resolver.addresses(30)] == ["192.0.2.1"]


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(LookupFailed, match="cannot be resolved"):
        Resolver("nothing.invalid", 443).addresses(60)
    with pytest.raises(LookupFailed, match="cannot be resolved"):
        Resolver("a" * 80 + ".example", 443).addresses(60)
