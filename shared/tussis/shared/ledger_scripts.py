"""The ledger's atomic steps on the broker, as Lua scripts. ``docs/wire-format.md`` has the first script verbatim."""

from __future__ import annotations

from typing import Final

# The scripts take the time from the broker: its clock is the one that all pushes into a list share. A clock may be set
# back, so a push gets at least the highest time in the list's sorted set and a microsecond more: the times in the set
# have the order of the pushes.
#
# A worker's scripts have the flag allow-oom: a full broker (maxmemory) lets them pass and refuses producers, so that
# the workers can drain it. The flag needs Redis 7 or Valkey.

# KEYS ledger, open, then sent and list of each job; ARGV job id, message, enqueued_at and envelope of each job. Answers
# for each job 1: opened; 0: was open, nothing done. A broker without memory refuses all of them, before the first.
# pcall: a login made for an older version of this script may not call ZRANGE; its pushes get the clock's time alone.
OPEN_SCRIPT: Final = """\
local now = redis.call('TIME')
local opened = {}
for i = 1, #ARGV / 4 do
  local job_id, sent = ARGV[4 * i - 3], KEYS[2 * i + 1]
  opened[i] = redis.call('HSETNX', KEYS[1], job_id, ARGV[4 * i - 2])
  if opened[i] == 1 then
    local last = redis.pcall('ZRANGE', sent, -1, -1, 'WITHSCORES')[2]
    local time = math.max(now[1] + (now[2] + i) / 1000000, (last or 0) + 0.000001)
    redis.call('ZADD', KEYS[2], ARGV[4 * i - 1], job_id)
    redis.call('ZADD', sent, time, job_id)
    redis.call('LPUSH', KEYS[2 * i + 2], ARGV[4 * i])
  end
end
return opened
"""

WORKERS_OWN: Final = "#!lua flags=allow-oom\n"
_NEXT_TIME: Final = """\
local now = redis.call('TIME')
local function next_time(sent)
  local last = redis.call('ZRANGE', sent, -1, -1, 'WITHSCORES')[2]
  return math.max(now[1] + now[2] / 1000000, (last or 0) + 0.000001)
end
"""

# KEYS ledger, open, sent, deferred, faults; ARGV job id, enqueued_at. A late copy of an older message, long answered,
# leaves alone what was enqueued under the same id since.
CLOSE_SCRIPT: Final = f"""{WORKERS_OWN}\
local read, now = pcall(cjson.decode, redis.call('HGET', KEYS[1], ARGV[1]) or '')
if read and type(now) == 'table' and type(now.enqueued_at) == 'number' and now.enqueued_at ~= tonumber(ARGV[2]) then
  return 0
end
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

# KEYS ledger, open, sent, deferred, faults; ARGV job id, message, enqueued_at, delay in seconds, faults to add (0, 1).
# After a fault it takes a bare push into the ledger as well, so that a deferred job is never in the deferred set alone.
DEFER_SCRIPT: Final = f"""{WORKERS_OWN}\
if ARGV[5] == '0' then
  if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
else
  redis.call('HINCRBY', KEYS[5], ARGV[1], ARGV[5])
end
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local now = redis.call('TIME')
redis.call('ZADD', KEYS[4], now[1] + now[2] / 1000000 + ARGV[4], ARGV[1])
return 1
"""

# KEYS ledger, open, sent, list; ARGV job id, message, enqueued_at, envelope. A push whatever the ledger says: the
# message that the caller holds is about to be acknowledged.
SEND_AGAIN_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}\
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], next_time(KEYS[3]), ARGV[1])
redis.call('LPUSH', KEYS[4], ARGV[4])
return 1
"""

# KEYS ledger, then of each job sent, list, and the sorted set in which the caller saw it; ARGV of each job its id, list
# entry, and the score it had there. Sends only what is still open and as the caller saw it: two callers never send one
# job twice.
RESEND_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}\
local count = 0
for i = 1, #ARGV / 3 do
  local job_id, seen = ARGV[3 * i - 2], KEYS[3 * i + 1]
  if redis.call('HEXISTS', KEYS[1], job_id) == 0 then
    redis.call('ZREM', seen, job_id)
  elseif ARGV[3 * i - 1] ~= '' and tonumber(redis.call('ZSCORE', seen, job_id)) == tonumber(ARGV[3 * i]) then
    redis.call('ZREM', seen, job_id)
    redis.call('ZADD', KEYS[3 * i - 1], next_time(KEYS[3 * i - 1]), job_id)
    redis.call('LPUSH', KEYS[3 * i], ARGV[3 * i - 1])
    count = count + 1
  end
end
return count
"""
