"""The atomic steps of the ledger on the broker, as Lua scripts. ``docs/wire-format.md`` quotes the first script."""

from __future__ import annotations

from typing import Final

# The scripts use the broker's clock, because all pushes into a list share it. A clock may be set back. For this reason
# the time of a push is at least one microsecond after the highest time in the list's sorted set. The times in the set
# therefore have the order of the pushes.
#
# The scripts of a worker have the flag allow-oom. A full broker (maxmemory) runs them and refuses producers, so that
# the workers can empty it. The flag needs Redis 7 or Valkey.

# KEYS: ledger, open, then sent and list of each job. ARGV: job id, message, enqueued_at and envelope of each job.
# Returns for each job 1 (opened) or 0 (already open, nothing done). A full broker refuses the script before the first
# job. pcall: a login made for an older version of this script may have no right to ZRANGE. Its pushes then get the time
# of the clock only.
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

# Appends an outcome to the stream, and stores it for a while under the id of its job. The id of an entry is the time in
# milliseconds and the number of outcomes so far. A clock that was set back would make an id that is too small. Then the
# entry gets the time of the last one.
_TELL: Final = """\
local function tell(stream, count, kept, outcome, limit, ttl, ...)
  local now = redis.call('TIME')
  local number = (redis.call('GET', count) or 0) + 1
  local time = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
  local added = redis.pcall('XADD', stream, 'MAXLEN', limit, time .. '-' .. number, 'outcome', outcome)
  if type(added) == 'table' and added.err then
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    time = last[1] and string.match(last[1][1], '^%d+') or time
    redis.call('XADD', stream, 'MAXLEN', limit, time .. '-' .. number, 'outcome', outcome)
  end
  redis.call('INCR', count)
  redis.call('SET', kept, outcome, 'EX', ttl, ...)
end
"""

# KEYS: ledger, open, sent, deferred, faults; outcomes, their count, the job's outcome; more sorted sets that may hold
# the job. ARGV: job id, enqueued_at or ''; outcome or '', number of outcomes to keep, seconds to keep the job's. A late
# copy of an older message, whose job has its answer, does not close a job that was enqueued later under the same id.
# The outcome is told only if the job was open, and before the job is closed: an error on the way leaves the job open.
CLOSE_SCRIPT: Final = f"""{WORKERS_OWN}{_TELL}\
local held = redis.call('HGET', KEYS[1], ARGV[1])
local read, now = pcall(cjson.decode, held or '')
if ARGV[2] ~= '' and read and type(now) == 'table' and type(now.enqueued_at) == 'number'
    and now.enqueued_at ~= tonumber(ARGV[2]) then
  return 0
end
if held and ARGV[3] ~= '' then
  tell(KEYS[6], KEYS[7], KEYS[8], ARGV[3], ARGV[4], ARGV[5])
end
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
for i = 9, #KEYS do
  redis.call('ZREM', KEYS[i], ARGV[1])
end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

# KEYS: outcomes, their count, then the job's outcome of each. ARGV: number of outcomes to keep, seconds to keep a
# job's, then each outcome. Sends outcomes again. An outcome that is stored under the id of a job stays, as it may be
# newer.
TELL_AGAIN_SCRIPT: Final = f"""{WORKERS_OWN}{_TELL}\
for i = 3, #ARGV do
  tell(KEYS[1], KEYS[2], KEYS[i], ARGV[i], ARGV[1], ARGV[2], 'NX')
end
return #ARGV - 2
"""

# KEYS: ledger, open, sent, deferred, faults. ARGV: job id, message, enqueued_at, delay in seconds, faults to add (0 or
# 1). After a fault it also enters a job that was pushed without the ledger, so that the ledger has all deferred jobs.
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

# KEYS: ledger, open, sent, list. ARGV: job id, message, enqueued_at, envelope. Pushes the message even if the ledger
# does not hold the job, because the caller acknowledges its own copy of the message next.
SEND_AGAIN_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}\
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], next_time(KEYS[3]), ARGV[1])
redis.call('LPUSH', KEYS[4], ARGV[4])
return 1
"""

# KEYS: ledger, then for each job sent, list, and the sorted set in which the caller saw it. ARGV: for each job its id,
# list entry, and its score in that set. Sends only jobs that are still open and whose score has not changed, so that
# two callers never send the same job twice.
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
