"""The steps of batches on the broker, as parts of the scripts of the ledger and as scripts of their own.

A batch is a hash with its counters. ``tussis.batch_of`` has the batches of each open job. Opening a job adds it there
and counts it; the step that closes the job takes it out and counts its end. So no end is counted twice or forgotten.
"""

from __future__ import annotations

from typing import Final

from tussis.shared.queues import BATCH_OF_KEY, BATCH_PREFIX, BATCHES_KEY

#: The most batches that the broker keeps. A new one replaces the one without open jobs that changed first.
MOST_BATCHES: Final = 1000
#: Seconds for which a batch is kept after its last open job has ended.
KEPT_S: Final = 7 * 86_400
#: Minutes for which the ends of jobs are counted by the minute.
MINUTES: Final = 60

#: Makes the batch unless it exists. Returns false if all batches have open jobs and there are as many as allowed.
_MAKE: Final = f"""\
local function make_batch(name, seconds)
  local key = '{BATCH_PREFIX}' .. name
  if redis.call('EXISTS', key) == 1 then return true end
  if redis.call('ZCARD', '{BATCHES_KEY}') >= {MOST_BATCHES} then
    for _, other in ipairs(redis.call('ZRANGE', '{BATCHES_KEY}', 0, -1)) do
      if tonumber(redis.call('HGET', '{BATCH_PREFIX}' .. other, 'open') or 0) == 0 then
        redis.call('DEL', '{BATCH_PREFIX}' .. other)
        redis.call('ZREM', '{BATCHES_KEY}', other)
        break
      end
    end
    if redis.call('ZCARD', '{BATCHES_KEY}') >= {MOST_BATCHES} then return false end
  end
  redis.call('HSET', key, 'total', 0, 'open', 0, 'opened_at', seconds)
  redis.call('EXPIRE', key, {KEPT_S})
  redis.call('ZADD', '{BATCHES_KEY}', seconds, name)
  return true
end
"""

# KEYS: ledger, open, then sent and list of each job. ARGV: the most open jobs or '', the batch or ''; then job id,
# message, enqueued_at and envelope of each job. It opens the jobs as OPEN_SCRIPT does, in order, and stops before the
# first one for which there is no room. Returns 1 (opened) or 0 (already open) for each job before it. A job that is
# open already needs no room, and joins the batch. Returns false if there are too many batches: nothing is done.
OPEN_BOUNDED_SCRIPT: Final = f"""{_MAKE}\
local now = redis.call('TIME')
local seconds = now[1] + now[2] / 1000000
local most, name = tonumber(ARGV[1]), ARGV[2]
if name ~= '' and not make_batch(name, string.format('%.6f', seconds)) then return false end
local depth = most and redis.call('ZCARD', KEYS[2])
local opened, joined = {{}}, 0
for i = 1, (#ARGV - 2) / 4 do
  local job_id, sent = ARGV[4 * i - 1], KEYS[2 * i + 1]
  if most and depth >= most and redis.call('HEXISTS', KEYS[1], job_id) == 0 then break end
  opened[i] = redis.call('HSETNX', KEYS[1], job_id, ARGV[4 * i])
  if opened[i] == 1 then
    local last = redis.pcall('ZRANGE', sent, -1, -1, 'WITHSCORES')[2]
    local time = math.max(now[1] + (now[2] + i) / 1000000, (last or 0) + 0.000001)
    redis.call('ZADD', KEYS[2], ARGV[4 * i + 1], job_id)
    redis.call('ZADD', sent, time, job_id)
    redis.call('LPUSH', KEYS[2 * i + 2], ARGV[4 * i + 2])
    depth = most and depth + 1
  end
  if name ~= '' then
    local names = redis.call('HGET', '{BATCH_OF_KEY}', job_id)
    if not names or not string.find(' ' .. names .. ' ', ' ' .. name .. ' ', 1, true) then
      redis.call('HSET', '{BATCH_OF_KEY}', job_id, names and names .. ' ' .. name or name)
      joined = joined + 1
    end
  end
end
if joined > 0 then
  local key = '{BATCH_PREFIX}' .. name
  redis.call('HINCRBY', key, 'total', joined)
  if redis.call('HINCRBY', key, 'open', joined) == joined then
    redis.call('HSET', key, 'resumed_at', string.format('%.6f', seconds))
  end
  redis.call('HDEL', key, 'closed_at', 'done_at')
  redis.call('PERSIST', key)
end
return opened
"""

#: For workers' scripts, behind ``append``. ``tell_batch`` appends the end of a batch to the stream if the batch is
#: closed and has no open job. ``leave_batches`` counts the end of a job in its batches: call it with pcall, because an
#: error of a batch, such as a key of another program, must not prevent the closing of the job.
LEAVE_BATCHES: Final = f"""\
local function tell_batch(name, stream, count, limit)
  local key = '{BATCH_PREFIX}' .. name
  local found = redis.call('HMGET', key, 'open', 'closed_at', 'total', 'succeeded', 'failed', 'cancelled',
    'opened_at', 'done_at')
  if found[1] ~= '0' or not found[2] then return end
  if not found[8] then
    local now = redis.call('TIME')
    found[8] = string.format('%.6f', now[1] + now[2] / 1000000)
    redis.call('HSET', key, 'done_at', found[8])
    redis.call('ZADD', '{BATCHES_KEY}', found[8], name)
  end
  append(stream, count, 'batch', string.format('{{"v":1,"batch":"%s","total":%d,"succeeded":%d,"failed":%d,'
    .. '"cancelled":%d,"opened_at":%s,"closed_at":%s,"done_at":%s}}', name, found[3], found[4] or 0, found[5] or 0,
    found[6] or 0, found[7], found[2], found[8]), limit)
end
local function leave_batches(job_id, outcome, stream, count, limit)
  local names = redis.call('HGET', '{BATCH_OF_KEY}', job_id)
  if not names then return end
  redis.call('HDEL', '{BATCH_OF_KEY}', job_id)
  local read, told = pcall(cjson.decode, outcome)
  local state = read and type(told) == 'table' and told.state or 'failed'
  local minute = math.floor(redis.call('TIME')[1] / 60)
  for name in string.gmatch(names, '%S+') do
    local key, slot = '{BATCH_PREFIX}' .. name, 'minute' .. minute % {MINUTES}
    if redis.call('HEXISTS', key, 'total') == 1 then
      redis.call('HINCRBY', key, state, 1)
      if state ~= 'cancelled' then
        local of, ended = string.match(redis.call('HGET', key, slot) or '', '^(%d+):(%d+)$')
        ended = tonumber(of) == minute and ended or 0
        redis.call('HSET', key, slot, string.format('%d:%d', minute, ended + 1))
      end
      if redis.call('HINCRBY', key, 'open', -1) <= 0 then
        tell_batch(name, stream, count, limit)
        redis.call('EXPIRE', key, {KEPT_S})
      end
    end
  end
end
"""

# KEYS: the batch, and the sorted set of batches to tell. ARGV: the batch, and 1 to make it if there is none. Closes
# it. A batch without open jobs is told by the leader, because a producer has no right to write outcomes. Returns false
# if there is no such batch.
CLOSE_BATCH_SCRIPT: Final = f"""{_MAKE}\
local now = redis.call('TIME')
local seconds = string.format('%.6f', now[1] + now[2] / 1000000)
if redis.call('EXISTS', KEYS[1]) == 0 and (ARGV[2] ~= '1' or not make_batch(ARGV[1], seconds)) then return false end
if redis.call('HSETNX', KEYS[1], 'closed_at', seconds) == 1 and redis.call('HGET', KEYS[1], 'open') == '0' then
  redis.call('HSET', KEYS[1], 'done_at', seconds)
  redis.call('ZADD', KEYS[2], seconds, ARGV[1])
end
return 1
"""
