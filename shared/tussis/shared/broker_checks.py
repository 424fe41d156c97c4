"""Checks of the broker before the first job: its kind, the rights of the login, and settings that may lose jobs."""

from __future__ import annotations

import uuid

import redis
from redis.exceptions import ResponseError

from tussis.shared.broker_functions import function, load


def check_worker_rights(client: redis.Redis) -> None:
    """Load the broker functions, and call every command of a worker once.

    Raises redis-py's errors if a right is missing or the server is unusable.
    """
    key = f"tussis.check:{uuid.uuid4()}"
    client.ping()
    load(client)
    function(client, "tussis_rights")(keys=[key])
    with client.pipeline(transaction=True) as pipe:
        pipe.llen(key)
        pipe.execute()
    client.brpop([key], timeout=0.01)


def risks_of(client: redis.Redis) -> list[str]:
    """The settings with which the broker may lose jobs, one sentence each. Raises redis-py's errors.

    The list is empty when the login has no right to INFO.
    """
    try:
        memory, persistence = client.info("memory"), client.info("persistence")
    except ResponseError:
        return []
    risks = []
    if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
        risks.append(f"its maxmemory-policy is {policy}: a full broker may drop open jobs; set noeviction")
    if persistence.get("aof_enabled", 1) == 0:
        risks.append("it has no append-only file: a restart loses open jobs; set appendonly yes, appendfsync always")
    return risks
