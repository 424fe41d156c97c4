"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from tussis.shared.errors import ServerFailed

LOOPBACK = "127.0.0.1"
#: Linux's default range for the ports of outgoing connections, for systems without the file in /proc.
DEFAULT_EPHEMERAL = (32_768, 60_999)
LOWEST = 10_240
HIGHEST = 65_535
ATTEMPTS = 500


def is_free(port: int) -> bool:
    """Whether no process listens on this port on any address. ``weed`` needs the port free on all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """``count`` different free ports, outside the range of the system for outgoing connections.

    Inside that range, a client that retries on the port of a stopped server would at some time connect to itself: a
    loopback connection whose source port is its destination port succeeds, and the server cannot bind the port.

    Raises:
        ServerFailed: too few ports are free.
    """
    low, high = _ephemeral()
    candidates = [port for port in range(LOWEST, HIGHEST + 1) if not low <= port <= high]
    if len(candidates) < ATTEMPTS:  # outgoing connections have the whole range: use it too
        candidates = list(range(LOWEST, HIGHEST + 1))
    # Another process may take a port between this check and the server's start. The callers then try other ports.
    found: list[int] = []
    for port in random.sample(candidates, ATTEMPTS):
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    if len(found) < count:
        raise ServerFailed(f"only {len(found)} of {ATTEMPTS} tried ports are free, and {count} are needed")
    return tuple(found)


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return DEFAULT_EPHEMERAL
    return int(low), int(high)
