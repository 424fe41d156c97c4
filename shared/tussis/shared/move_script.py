"""The script that moves open jobs to the lists of another device. It runs as a function of the broker.

``docs/wire-format.md`` quotes the script.
"""

from __future__ import annotations

from typing import Final

# KEYS: ledger. ARGV: an envelope, then job id, device and a new delivery tag of each job. A job that is open for
# another device gets this one: its message in the ledger changes, only in the device, and a new envelope with it enters
# the list of the device. The envelope in the old list stays: the worker that takes it later finds the job done. Jobs of
# the shadow model stay. Returns the number of moved jobs. The new message is text of the old one, because cjson would
# change its numbers and empty lists. A text that looks like the device may also be in the metadata, so each is tried,
# up to ten.
MOVE_SCRIPT: Final = """\
local devices, now, count = {any = true, cpu = true, gpu = true}, redis.call('TIME'), 0
local function with_device(text, from, to)
  if not from then return '{"device":"' .. to .. '",' .. string.sub(text, string.find(text, '{', 1, true) + 1) end
  local at = 1
  for _ = 1, 10 do
    local first, last = string.find(text, '"device"%s*:%s*"' .. from .. '"', at)
    if not first then return nil end
    local changed = string.sub(text, 1, first - 1) .. '"device":"' .. to .. '"' .. string.sub(text, last + 1)
    if cjson.decode(changed).device == to then return changed end
    at = last + 1
  end
end
for i = 2, #ARGV, 3 do
  local job_id, device, text = ARGV[i], ARGV[i + 1], redis.call('HGET', KEYS[1], ARGV[i])
  local read, job = pcall(cjson.decode, text or '')
  if not (read and type(job) == 'table' and job.job_id == job_id) then job = {device = ''} end
  local from, priority = job.device or 'any', job.priority or 5
  if devices[from] and from ~= device and job.shadow ~= true and string.find(tostring(priority), '^%d$') then
    local moved = with_device(text, job.device, device)
    if moved then
      local step = priority == 0 and '' or ':' .. priority
      local list, entry = 'tussis.' .. device .. step, cjson.decode(ARGV[1])
      local sent, old = 'tussis.sent:' .. list, 'tussis.sent:tussis.' .. from
      local last = redis.call('ZRANGE', sent, -1, -1, 'WITHSCORES')[2]
      entry.body = '[[],{"message":' .. moved .. '},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
      entry.headers.id, entry.headers.root_id, entry.properties.correlation_id = job_id, job_id, job_id
      entry.properties.body_encoding, entry.properties.delivery_tag = 'utf-8', ARGV[i + 2]
      entry.properties.delivery_info.routing_key, entry.properties.priority = 'tussis.' .. device, priority
      redis.call('HSET', KEYS[1], job_id, moved)
      redis.call('ZREM', old .. step, job_id)
      if type(job.model) == 'string' then redis.call('ZREM', old .. '@' .. job.model .. step, job_id) end
      redis.call('ZADD', sent, math.max(now[1] + (now[2] + i) / 1000000, (last or 0) + 0.000001), job_id)
      redis.call('LPUSH', list, cjson.encode(entry))
      count = count + 1
    end
  end
end
return count
"""
