"""What can be wrong with a broker before the first job: its kind, the login's rights, and settings that lose jobs."""

from __future__ import annotations

import uuid
from typing import Final

import redis
from redis.exceptions import ResponseError

from tussis.shared.ledger_scripts import WORKERS_OWN

# KEYS a key that nobody has. Every command that a worker uses, but those that a script cannot call; nothing stays. A
# right that the login lacks raises out of it.
_RIGHTS_SCRIPT: Final = f"""{WORKERS_OWN.replace("allow-oom", "allow-oom,no-cluster")}\
local key = KEYS[1]
for _, words in ipairs({{
  {{'TIME'}}, {{'EXISTS', key}}, {{'GET', key}}, {{'SET', key, '', 'PX', '1'}}, {{'DEL', key}},
  {{'LPUSH', key, ''}}, {{'RPUSH', key, ''}}, {{'LLEN', key}}, {{'LRANGE', key, 0, -1}}, {{'DEL', key}},
  {{'HSET', key, 'a', 1}}, {{'HSETNX', key, 'a', 1}}, {{'HINCRBY', key, 'a', 1}}, {{'HGET', key, 'a'}},
  {{'HMGET', key, 'a'}}, {{'HEXISTS', key, 'a'}}, {{'HLEN', key}}, {{'HVALS', key}}, {{'HGETALL', key}},
  {{'HDEL', key, 'a'}}, {{'ZADD', key, 1, 'a'}}, {{'ZRANGE', key, 0, -1}}, {{'ZSCORE', key, 'a'}},
  {{'ZMSCORE', key, 'a'}}, {{'ZCARD', key}}, {{'ZREM', key, 'a'}},
}}) do
  redis.call(unpack(words))
end
return 1
"""


def check_worker_rights(client: redis.Redis) -> None:
    """Use every command of a worker once. Raises redis-py's errors: a right is missing, or the server is of no use."""
    key = f"tussis.check:{uuid.uuid4()}"
    client.ping()
    client.eval(_RIGHTS_SCRIPT, 1, key)
    client.register_script(_RIGHTS_SCRIPT)(keys=[key])
    with client.pipeline(transaction=True) as pipe:
        pipe.llen(key)
        pipe.execute()
    client.brpop([key], timeout=0.01)


def risks_of(client: redis.Redis) -> list[str]:
    """The broker's settings with which it may lose jobs, a sentence each. Raises redis-py's errors.

    Nothing where the server does not tell, because the login has no right to INFO.
    """
    try:
        memory, persistence = client.info("memory"), client.info("persistence")
    except ResponseError:
        return []
    risks = []
    if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
        risks.append(f"its maxmemory-policy is {policy}: a full broker may drop open jobs; set noeviction")
    if persistence.get("aof_enabled", 1) == 0:
        risks.append("it keeps no append-only file: a restart loses open jobs; set appendonly yes, appendfsync always")
    return risks
