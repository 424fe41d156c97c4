"""The atomic steps of a worker's parent on the broker: its transport, which replaces commands of kombu, and its duties.

The scripts have the flag allow-oom, so that they also run on a full broker. They use the time of the broker: the clocks
of workers may differ by more than the visibility timeout.
"""

from __future__ import annotations

from typing import Final

from tussis.shared.ledger_scripts import WORKERS_OWN

#: Run on each new connection. A replica refuses it, and so does a primary that takes no writes. It writes nothing.
PRIMARY_PROBE: Final = f"{WORKERS_OWN}return 1"

# KEYS unacked, index; ARGV delivery tag, record. Records a delivered message.
FILE_SCRIPT: Final = f"""{WORKERS_OWN}\
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1] + now[2] / 1000000, ARGV[1])
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""

# KEYS unacked, index; ARGV delivery tag. Removes the record of a message.
SETTLE_SCRIPT: Final = f"""{WORKERS_OWN}\
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

# KEYS index; ARGV delivery tags. Renews messages in work, so that they are not given back.
BEAT_SCRIPT: Final = f"""{WORKERS_OWN}\
local now = redis.call('TIME')
for _, tag in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], 'XX', now[1] + now[2] / 1000000, tag)
end
return #ARGV
"""

# KEYS unacked, index; ARGV visibility timeout in seconds, the most messages. Returns the delivery tags and records of
# messages that had no heartbeat for that time.
OVERDUE_SCRIPT: Final = f"""{WORKERS_OWN}\
local now = redis.call('TIME')
local found = {{}}
for _, tag in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', now[1] + now[2] / 1000000 - ARGV[1], 'BYSCORE',
                                'LIMIT', 0, ARGV[2])) do
  local filed = redis.call('HGET', KEYS[1], tag)
  if filed then
    found[#found + 1] = tag
    found[#found + 1] = filed
  else
    redis.call('ZREM', KEYS[2], tag)
  end
end
return found
"""

# KEYS unacked, index, list, model queues; ARGV delivery tag, list entry, RPUSH or LPUSH, the visibility timeout in
# seconds (negative: give back without waiting for it), and the model queue of the list ('' if it belongs to none). If
# two workers give the same message back, it is pushed once.
GIVE_BACK_SCRIPT: Final = f"""{WORKERS_OWN}\
local now, since = redis.call('TIME'), redis.call('ZSCORE', KEYS[2], ARGV[1])
if since and now[1] + now[2] / 1000000 - since < tonumber(ARGV[4]) then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3], KEYS[3], ARGV[2])
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[4], 'NX', now[1] + now[2] / 1000000, ARGV[5]) end
return 1
"""

# KEYS workers, models; ARGV worker name, its entry, then the texts with which a job can name its model.
REPORT_SCRIPT: Final = f"""{WORKERS_OWN}\
local now = redis.call('TIME')
for i = 3, #ARGV do redis.call('HSET', KEYS[2], ARGV[i], now[1] + now[2] / 1000000) end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""

# KEYS leader; ARGV own name, lease in ms. 1 when the caller leads.
LEAD_SCRIPT: Final = f"""{WORKERS_OWN}\
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: an unused key. Calls every command that a worker uses, except those that a script cannot call. It leaves no data
# in the broker. A missing right of the login raises an error.
RIGHTS_SCRIPT: Final = f"""{WORKERS_OWN.replace("allow-oom", "allow-oom,no-cluster")}\
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
