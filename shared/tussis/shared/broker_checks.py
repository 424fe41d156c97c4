"""Checks of the broker before the first job: its kind, the rights of the login, and settings that may lose jobs."""

from __future__ import annotations

import uuid
from typing import Final

import redis
from redis.exceptions import ResponseError

from tussis.shared.ledger_scripts import WORKERS_OWN

# KEYS: an unused key. Calls every command that a worker uses, except those that a script cannot call. It leaves no data
# in the broker. A missing right of the login raises an error.
_RIGHTS_SCRIPT: Final = f"""{WORKERS_OWN.replace("allow-oom", "allow-oom,no-cluster")}\
local key = KEYS[1]
for _, command in ipairs({{
  {{'TIME'}}, {{'EXISTS', key}}, {{'GET', key}}, {{'SET', key, '', 'PX', '1'}}, {{'DEL', key}},
  {{'LPUSH', key, ''}}, {{'RPUSH', key, ''}}, {{'LLEN', key}}, {{'LRANGE', key, 0, -1}},
  {{'RPOP', key, 1}}, {{'DEL', key}},
  {{'HSET', key, 'a', 1}}, {{'HSETNX', key, 'a', 1}}, {{'HINCRBY', key, 'a', 1}}, {{'HGET', key, 'a'}},
  {{'HMGET', key, 'a'}}, {{'HEXISTS', key, 'a'}}, {{'HLEN', key}}, {{'HVALS', key}}, {{'HGETALL', key}},
  {{'EXPIRE', key, 1}}, {{'HDEL', key, 'a'}}, {{'ZADD', key, 1, 'a'}}, {{'ZRANGE', key, 0, -1}}, {{'ZSCORE', key, 'a'}},
  {{'ZMSCORE', key, 'a'}}, {{'ZCARD', key}}, {{'ZREM', key, 'a'}}, {{'DEL', key}},
  {{'INCR', key}}, {{'DEL', key}}, {{'XADD', key, 'MAXLEN', 1, '*', 'a', 1}}, {{'XREVRANGE', key, '+', '-'}},
  {{'DEL', key}},
}}) do
  redis.call(unpack(command))
end
return 1
"""


def check_worker_rights(client: redis.Redis) -> None:
    """Call every command of a worker once. Raises redis-py's errors if a right is missing or the server is unusable."""
    key = f"tussis.check:{uuid.uuid4()}"
    client.ping()
    client.eval(_RIGHTS_SCRIPT, 1, key)
    client.register_script(_RIGHTS_SCRIPT)(keys=[key])
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
