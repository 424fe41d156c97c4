"""The faults of a soak. Each function injects one fault, and repairs what does not recover without help."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final

from tests.soak.plant import Plant
from tests.soak.s3_proxy import S3Fault

#: Seconds for which a server is down, or the store returns faults.
_AWAY_S: Final = (0.5, 4.0)
_S3_FAULTS: Final = (S3Fault.UNAVAILABLE, S3Fault.CUT, S3Fault.SHORT, S3Fault.SLOW, S3Fault.DENIED, S3Fault.EXPIRED)


def _kill_child(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    return plant.kill_child(rng)


def _kill_worker(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    rng.choice(plant.workers).process.kill()
    plant.replace_dead()
    return "kill -9 worker"


def _stop_worker(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    rng.choice(plant.workers).stop()
    plant.replace_dead()
    return "SIGTERM worker"


def _kill_broker(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    plant.servers.broker.kill()
    over.wait(rng.uniform(*_AWAY_S))
    plant.servers.broker.start()
    return "kill -9 broker"


def _kill_database(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    plant.servers.postgres.kill()
    over.wait(rng.uniform(*_AWAY_S))
    plant.servers.postgres.start()
    return "kill -9 database"


def _cut(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    name, proxy = rng.choice([("broker", plant.broker_proxy), ("database", plant.database_proxy)])
    proxy.cut()
    return f"cut connections to the {name}"


def _half_open(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    name, proxy = rng.choice([("broker", plant.broker_proxy), ("database", plant.database_proxy)])
    frozen = proxy.connections
    for connection in frozen:
        connection.freeze()
    return f"half-open {name} ({len(frozen)} connections)"


def _s3(plant: Plant, rng: random.Random, over: threading.Event) -> str:
    fault = rng.choice(_S3_FAULTS)
    plant.s3_proxy.plan = lambda method, path, count: fault
    over.wait(rng.uniform(*_AWAY_S))
    plant.s3_proxy.plan = lambda method, path, count: None
    return f"S3 {fault}"


FAULTS: Final[dict[str, Callable[[Plant, random.Random, threading.Event], str]]] = {
    "child": _kill_child,
    "worker": _kill_worker,
    "stop": _stop_worker,
    "broker": _kill_broker,
    "database": _kill_database,
    "cut": _cut,
    "half-open": _half_open,
    "s3": _s3,
}
"""By the name under which recovery times are reported."""
