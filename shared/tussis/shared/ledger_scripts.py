"""The atomic steps of the ledger on the broker, as Lua scripts. ``docs/wire-format.md`` quotes the first script."""

from __future__ import annotations

from typing import Final

from tussis.shared.batch_scripts import LEAVE_BATCHES

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

# Whether the ledger holds another job under the same id: one that was enqueued later, or one of another object.
_IS_REPLACED: Final = """\
local function is_replaced(ledger, job_id, enqueued_at, bucket, key)
  local read, now = pcall(cjson.decode, redis.call('HGET', ledger, job_id) or '')
  local held = read and type(now) == 'table' and now.enqueued_at
  if type(held) ~= 'number' then return false end
  return held ~= tonumber(enqueued_at) or (bucket and (now.bucket ~= bucket or now.key ~= key))
end
"""

# Appends an outcome to the stream, and stores it for a while under the id of its job. The id of an entry is the time in
# milliseconds and the number of entries so far. A clock that was set back would make an id that is too small. Then the
# entry gets the time of the last one.
_TELL: Final = """\
local function append(stream, count, field, document, limit)
  local now = redis.call('TIME')
  local number = (redis.call('GET', count) or 0) + 1
  local time = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
  local added = redis.pcall('XADD', stream, 'MAXLEN', limit, time .. '-' .. number, field, document)
  if type(added) == 'table' and added.err then
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    time = last[1] and string.match(last[1][1], '^%d+') or time
    redis.call('XADD', stream, 'MAXLEN', limit, time .. '-' .. number, field, document)
  end
  redis.call('INCR', count)
end
local function tell(stream, count, kept, outcome, limit, ttl, ...)
  append(stream, count, 'outcome', outcome, limit)
  redis.call('SET', kept, outcome, 'EX', ttl, ...)
end
"""

# An operator cancelled the job, or its recording was forgotten: a worker that still has its message must not open it
# again.
_IS_CANCELLED: Final = """\
local function is_cancelled(ledger, kept, job_id, enqueued_at)
  if redis.call('HEXISTS', ledger, job_id) == 1 then return false end
  local read, outcome = pcall(cjson.decode, redis.call('GET', kept) or '')
  if not read or type(outcome) ~= 'table' or outcome.enqueued_at ~= tonumber(enqueued_at) then return false end
  return outcome.state == 'cancelled' or (type(outcome.error) == 'table' and outcome.error.class == 'forgotten')
end
"""

# KEYS: ledger, open, deferred, faults, unserved, outcomes, their count, the job's outcome, then every sorted set of
# sent jobs that may have the job. ARGV: job id, enqueued_at or ''; outcome or '', number of outcomes to keep, seconds
# to keep the job's, 'NX' to leave a kept outcome of the id as it is or ''; bucket, key. A late copy of an older
# message, whose job has its answer, does not close a job that was enqueued later under the same id, or one of another
# object. The outcome is told only if the job was open, and before the job is closed: an error on the way leaves the job
# open. The end is counted in the batches of the job, and a batch that is done is told.
#
# To open another job in the same step, unless the recording was forgotten meanwhile: three more KEYS (model queues,
# sorted set and list of its model queue) and ARGV (its job id, message, enqueued_at, envelope, model queue, the most
# model queues).
_CLOSE: Final = """\
if ARGV[2] ~= '' and is_replaced(KEYS[1], ARGV[1], ARGV[2], ARGV[7], ARGV[8]) then return 0 end
if ARGV[9] and is_cancelled(KEYS[1], KEYS[8], ARGV[1], ARGV[2]) then return 0 end
if ARGV[3] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  if ARGV[6] == 'NX' then
    tell(KEYS[6], KEYS[7], KEYS[8], ARGV[3], ARGV[4], ARGV[5], 'NX')
  else
    tell(KEYS[6], KEYS[7], KEYS[8], ARGV[3], ARGV[4], ARGV[5])
  end
end
pcall(leave_batches, ARGV[1], ARGV[3], KEYS[6], KEYS[7], ARGV[4])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local closed = redis.call('HDEL', KEYS[1], ARGV[1])
local own = ARGV[9] and #KEYS - 3 or #KEYS
for i = 9, own do redis.call('ZREM', KEYS[i], ARGV[1]) end
if not ARGV[9] then return closed end
local queues, sent, list = unpack(KEYS, own + 1)
if not redis.call('ZSCORE', queues, ARGV[13]) then
  if redis.call('ZCARD', queues) >= tonumber(ARGV[14]) then return closed end
  redis.call('ZADD', queues, now[1] + now[2] / 1000000, ARGV[13])
end
if redis.call('HSETNX', KEYS[1], ARGV[9], ARGV[10]) == 1 then
  redis.call('ZADD', KEYS[2], ARGV[11], ARGV[9])
  redis.call('ZADD', sent, next_time(sent), ARGV[9])
  redis.call('LPUSH', list, ARGV[12])
end
return closed
"""
CLOSE_SCRIPT: Final = f"{WORKERS_OWN}{_NEXT_TIME}{_IS_REPLACED}{_IS_CANCELLED}{_TELL}{LEAVE_BATCHES}{_CLOSE}"

# Closes many jobs in one step. KEYS and ARGV: those of CLOSE_SCRIPT of each job, with the number of its keys and of its
# arguments before its arguments. Returns what CLOSE_SCRIPT returns for each job.
CLOSE_MANY_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}{_IS_REPLACED}{_IS_CANCELLED}{_TELL}{LEAVE_BATCHES}\
local function close(KEYS, ARGV)
{_CLOSE}end
local key, argument, closed = 0, 0, {{}}
while argument < #ARGV do
  local keys, arguments = {{}}, {{}}
  local key_count, argument_count = tonumber(ARGV[argument + 1]), tonumber(ARGV[argument + 2])
  for i = 1, key_count do keys[i] = KEYS[key + i] end
  for i = 1, argument_count do arguments[i] = ARGV[argument + 2 + i] end
  closed[#closed + 1] = close(keys, arguments)
  key, argument = key + key_count, argument + 2 + argument_count
end
return closed
"""

# KEYS: ledger, list. ARGV: first and last index, counted from the end of the list (-1 is the next message), then job
# ids. Removes the messages of these jobs in this part of the list, but not of a job that is open. Returns their number.
PRUNE_SCRIPT: Final = f"""{WORKERS_OWN}\
local named, count = {{}}, 0
for i = 3, #ARGV do named[ARGV[i]] = redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 end
local entries = redis.call('LRANGE', KEYS[2], ARGV[1], ARGV[2])
for i, entry in ipairs(entries) do
  if named[string.match(entry, '"id":"([^"]*)"') or ''] then
    redis.call('LSET', KEYS[2], ARGV[2] - #entries + i, 'cancelled')
    count = count + 1
  end
end
if count > 0 then redis.call('LREM', KEYS[2], -count, 'cancelled') end
return count
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

# KEYS: the sorted set of batches to tell, outcomes, their count. ARGV: number of outcomes to keep. Tells that the
# batches are done, unless they got further jobs. Returns the number of names.
TELL_BATCHES_SCRIPT: Final = f"""{WORKERS_OWN}{_TELL}{LEAVE_BATCHES}\
local names = redis.call('ZRANGE', KEYS[1], 0, 99)
for _, name in ipairs(names) do
  pcall(tell_batch, name, KEYS[2], KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[1], name)
end
return #names
"""

# KEYS: ledger, open, deferred, faults, the job's outcome, then every sorted set of sent jobs that may have the job.
# ARGV: job id, message, enqueued_at, delay in seconds, faults to add (0 or 1). After a fault it also enters a job that
# was pushed without the ledger, so that the ledger has all deferred jobs. Nothing is done for a cancelled job.
DEFER_SCRIPT: Final = f"""{WORKERS_OWN}{_IS_CANCELLED}\
if is_cancelled(KEYS[1], KEYS[5], ARGV[1], ARGV[3]) then return 0 end
if ARGV[5] == '0' then
  if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
else
  redis.call('HINCRBY', KEYS[4], ARGV[1], ARGV[5])
end
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
for i = 6, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[3], now[1] + now[2] / 1000000 + ARGV[4], ARGV[1])
return 1
"""

# KEYS: ledger, open, list, the sorted set of the list, the job's outcome, then the other sorted sets that may have the
# job. ARGV: job id, message, enqueued_at, envelope. Pushes the message even if the ledger does not hold the job,
# because the caller acknowledges its own copy of the message next; but not that of a cancelled job.
SEND_AGAIN_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}{_IS_CANCELLED}\
if is_cancelled(KEYS[1], KEYS[5], ARGV[1], ARGV[3]) then return 0 end
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
for i = 6, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('ZADD', KEYS[4], next_time(KEYS[4]), ARGV[1])
redis.call('LPUSH', KEYS[3], ARGV[4])
return 1
"""

# KEYS: ledger, open, deferred, model queues, models, unserved, the sorted set and the list of the model queue, the
# job's outcome, then the other sorted sets that may have the job. ARGV: job id, message, enqueued_at, envelope, model,
# model queue, seconds after which a model is not served any more, the most model queues, delay in seconds if there are
# as many already. Returns false, or for a job that must fail the seconds since its model was last served ('' if
# unknown). Nothing is pushed for a job that was enqueued later under the same id: it has its own message. As
# SEND_AGAIN_SCRIPT, it enters a job that the ledger does not hold, but not a cancelled one.
ROUTE_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}{_IS_REPLACED}{_IS_CANCELLED}\
if is_replaced(KEYS[1], ARGV[1], ARGV[3]) then return false end
if is_cancelled(KEYS[1], KEYS[9], ARGV[1], ARGV[3]) then return false end
local seconds = now[1] + now[2] / 1000000
if redis.call('HGET', KEYS[6], ARGV[1]) == ARGV[5] then
  local served = tonumber(redis.call('HGET', KEYS[5], ARGV[5]) or '')
  if not served then return '' end
  if seconds - served >= tonumber(ARGV[7]) then return tostring(seconds - served) end
  redis.call('HDEL', KEYS[6], ARGV[1])
end
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
for i = 10, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
if not redis.call('ZSCORE', KEYS[4], ARGV[6]) then
  if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[8]) then
    redis.call('ZADD', KEYS[3], seconds + ARGV[9], ARGV[1])
    return false
  end
  redis.call('ZADD', KEYS[4], seconds, ARGV[6])
end
redis.call('ZADD', KEYS[7], next_time(KEYS[7]), ARGV[1])
redis.call('LPUSH', KEYS[8], ARGV[4])
return false
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

# KEYS: ledger, list and sorted set of a model queue, list and sorted set of its device's queue, unserved. ARGV: the
# most messages to look at, the model, and a time. Returns messages from the end of the model queue's list, the next one
# first, to the device's queue. With the time '' these are the messages of jobs that name no model. Otherwise they are
# the other messages that were pushed before the time, and their jobs are noted in unserved. What stays keeps its order.
# Messages without a push time were pushed without the ledger, or their job has ended: a worker finds out. Returns the
# number of messages.
RETURN_SCRIPT: Final = f"""{WORKERS_OWN}{_NEXT_TIME}\
local function job_of(entry)
  local read, message = pcall(cjson.decode, entry)
  local headers = read and type(message) == 'table' and message.headers
  local job_id = type(headers) == 'table' and headers.id
  if type(job_id) ~= 'string' then return nil, false end
  local held, job = pcall(cjson.decode, redis.call('HGET', KEYS[1], job_id) or '')
  return job_id, held and type(job) == 'table' and type(job.model) ~= 'string'
end
local entries = redis.call('LRANGE', KEYS[2], -ARGV[1], -1)
local kept, returned = {{}}, {{}}
for i = #entries, 1, -1 do
  local job_id, unnamed = job_of(entries[i])
  local score = job_id and redis.call('ZSCORE', KEYS[3], job_id)
  local old = ARGV[3] ~= '' and (not score or tonumber(score) <= tonumber(ARGV[3]))
  if unnamed == (ARGV[3] == '') and (unnamed or old) then
    returned[#returned + 1] = {{entries[i], score and job_id or false, unnamed}}
  else
    kept[#kept + 1] = entries[i]
  end
end
if #returned == 0 then return 0 end
redis.call('RPOP', KEYS[2], #entries)
for i = #kept, 1, -1 do redis.call('RPUSH', KEYS[2], kept[i]) end
for _, message in ipairs(returned) do
  local entry, job_id, unnamed = unpack(message)
  if job_id then
    redis.call('ZREM', KEYS[3], job_id)
    redis.call('ZADD', KEYS[5], next_time(KEYS[5]), job_id)
    if not unnamed then redis.call('HSET', KEYS[6], job_id, ARGV[2]) end
  end
  redis.call('LPUSH', KEYS[4], entry)
end
return #returned
"""

# KEYS: model queues, then all lists and sorted sets of a model queue. ARGV: the model queue. Removes it if it is empty.
FORGET_SCRIPT: Final = f"""{WORKERS_OWN}\
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
return redis.call('ZREM', KEYS[1], ARGV[1])
"""
