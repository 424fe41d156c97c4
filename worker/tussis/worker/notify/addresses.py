"""Which network addresses the notifier connects to: public ones, and networks that its operator allows.

Without this check, whoever sets the URL, or the name server of its host, could send requests into the network of the
notifier (server-side request forgery).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Prefix of IPv6 addresses that a gateway translates to the IPv4 address in their last 32 bits (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class LookupFailed(Exception):
    """The name of the host cannot be resolved."""


@dataclass(frozen=True)
class AddressPolicy:
    """Which addresses are allowed: public ones, and those in ``allowed``."""

    allowed: tuple[Network, ...] = ()

    def refusal(self, text: str, *, encrypted: bool) -> str | None:
        """Why the address is refused; None if it is allowed. Without TLS only ``allowed`` networks are."""
        address = ipaddress.ip_address(text.partition("%")[0])  # without the zone of a link-local address
        inner = embedded(address) or address
        if any(
            one in network for network in self.allowed for one in {address, inner} if one.version == network.version
        ):
            return None
        if not (is_public(address) and is_public(inner)):
            return f"the address {address} is not public: allow its network with --allow-network"
        if not encrypted:
            return f"http:// is only for networks that --allow-network names, and {address} is public: use https://"
        return None


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a connection to an IPv6 address can reach; None if there is none."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None


def is_public(address: Address) -> bool:
    """Whether an address belongs to a host on the internet: not private, loopback, link-local, multicast, reserved."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.is_site_local:
            return False
        if address in _NAT64:
            return True  # its IPv4 address decides
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Networks in CIDR notation, or single addresses. Raises ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)


@dataclass(frozen=True)
class SocketAddress:
    """An address of a host, as the name server gave it."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

    @property
    def host(self) -> str:
        return str(self.sockaddr[0])


class Resolver:
    """Looks up the addresses of one host, with a time limit. Thread-safe.

    The system's resolver has no time limit that a program can set. One thread at a time asks it, and all callers wait
    for its answer, so that a name server that hangs occupies one thread.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._lock = threading.Lock()
        self._running: _Lookup | None = None

    def addresses(self, timeout_s: float) -> list[SocketAddress]:
        """The addresses of the host, at least one. Raises :class:`LookupFailed`."""
        with self._lock:
            lookup = self._running
            if lookup is None or lookup.done.is_set():
                lookup = self._running = _Lookup(self._host, self._port)
        if not lookup.done.wait(timeout_s):
            raise LookupFailed(f"the name server did not answer within {timeout_s:.0f} s")
        if lookup.error is not None:
            raise LookupFailed(lookup.error)
        return lookup.found


class _Lookup:
    """One question to the system's resolver, in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.done = threading.Event()
        self.found: list[SocketAddress] = []
        self.error: str | None = None
        threading.Thread(target=self._ask, args=(host, port), name="lookup", daemon=True).start()

    def _ask(self, host: str, port: int) -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.found = [SocketAddress(family, sockaddr) for family, _, _, _, sockaddr in answers]
            if not self.found:
                self.error = "the name server knows no address"
        except (OSError, UnicodeError) as error:
            self.error = f"the host name cannot be resolved ({getattr(error, 'strerror', None) or error})"
        finally:
            self.done.set()
