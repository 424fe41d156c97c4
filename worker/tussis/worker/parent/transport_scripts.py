"""What the transport does in one step on the broker, in Lua, in the place of kombu's commands.

The scripts have the flag allow-oom, so that a worker files, gives back and settles messages on a full broker. They take
the time from the broker: the clocks of workers may differ by more than the visibility timeout.
"""

from __future__ import annotations

from typing import Final

from tussis.shared.ledger_scripts import WORKERS_OWN

#: Run on each new connection: a replica, and a primary that takes no writes, refuse it. Nothing is written.
PRIMARY_PROBE: Final = f"{WORKERS_OWN}return 1"

# KEYS unacked, index; ARGV delivery tag, what is filed.
FILE_SCRIPT: Final = f"""{WORKERS_OWN}\
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1] + now[2] / 1000000, ARGV[1])
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""

# KEYS unacked, index; ARGV delivery tag.
SETTLE_SCRIPT: Final = f"""{WORKERS_OWN}\
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

# KEYS index; ARGV delivery tags. Keeps messages in work from going back.
BEAT_SCRIPT: Final = f"""{WORKERS_OWN}\
local now = redis.call('TIME')
for _, tag in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], 'XX', now[1] + now[2] / 1000000, tag)
end
return #ARGV
"""

# KEYS unacked, index; ARGV visibility timeout in seconds, the most messages. Answers the delivery tags, each with what
# is filed under it, of messages that nobody has kept in work for so long.
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

# KEYS unacked, index, list; ARGV delivery tag, list entry, RPUSH or LPUSH, and the visibility timeout in seconds
# (negative: whether it is over or not). Two workers that want to give one message back do it once.
GIVE_BACK_SCRIPT: Final = f"""{WORKERS_OWN}\
local now, since = redis.call('TIME'), redis.call('ZSCORE', KEYS[2], ARGV[1])
if since and now[1] + now[2] / 1000000 - since < tonumber(ARGV[4]) then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3], KEYS[3], ARGV[2])
return 1
"""

# KEYS workers; ARGV worker name, what it says of itself.
REPORT_SCRIPT: Final = f"{WORKERS_OWN}return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"
