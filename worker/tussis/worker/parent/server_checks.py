"""Warnings at the start of a worker, which continues: clocks that differ, and a broker that may lose jobs."""

from __future__ import annotations

import time
from collections.abc import Callable

from tussis.shared.broker import broker_errors, connect, redact, server_time
from tussis.shared.broker_address import verified
from tussis.shared.broker_checks import risks_of
from tussis.shared.settings import Settings
from tussis.shared.store.repository import Store
from tussis.worker import logs

_log = logs.get("server_checks")

#: The difference of two clocks, in seconds, above which to warn. Synchronised clocks (NTP) differ by milliseconds.
SKEW_S = 5.0


def warn_of_servers(settings: Settings) -> None:
    """Log ``clock_skew``, ``broker_may_lose_jobs`` and ``broker_not_verified`` if they apply.

    Raises :class:`BrokerUnavailable`, :class:`BrokerRefused`, :class:`DatabaseUnavailable`, :class:`DatabaseRefused`.
    """
    url = settings.need_broker()
    if not verified(url):
        _log.warning("broker_not_verified", reason="TUSSIS_BROKER_URL turns off a check of the broker's certificate")
    client = connect(url)
    try:
        with broker_errors(redact(url)):
            _compare("broker", lambda: server_time(client))
            risks = risks_of(client)
        if risks:
            _log.warning("broker_may_lose_jobs", reason="; ".join(risks))
    finally:
        client.close()
    with Store.connect(settings.need_database(), pool_size=1, direct=settings.database_direct) as store:
        _compare("database", store.clock)


def _compare(server: str, clock: Callable[[], float]) -> None:
    """Warn when the server's clock differs from ours by more than :data:`SKEW_S` plus the time of the request."""
    clock()  # Connects, so that the next call is fast.
    began = time.time()
    its = clock()
    ended = time.time()
    ahead_s = its - (began + ended) / 2
    if abs(ahead_s) > SKEW_S + (ended - began):
        _log.warning("clock_skew", server=server, ahead_s=round(ahead_s, 1))
