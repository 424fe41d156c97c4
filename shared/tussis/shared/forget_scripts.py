"""The atomic steps of `tussis forget` on the broker, as Lua scripts."""

from __future__ import annotations

from typing import Final

from tussis.shared.ledger_scripts import WORKERS_OWN

# KEYS: a stream, and a name for its copy. ARGV: the ids of the entries to remove. Returns the number of removed ones.
#
# XDEL only marks an entry: its text stays in memory, and in the files of the broker, until its neighbours are gone too.
# So the stream is written again without these entries. Its groups keep their places, and their consumers what they have
# received and not acknowledged.
REMOVE_ENTRIES_SCRIPT: Final = f"""{WORKERS_OWN}\
local gone, count = {{}}, 0
for i = 1, #ARGV do gone[ARGV[i]] = true end
local stream, copy = KEYS[1], KEYS[2]
if redis.call('EXISTS', stream) == 0 then return 0 end
local facts, last = redis.call('XINFO', 'STREAM', stream)
for i = 1, #facts, 2 do
  if facts[i] == 'last-generated-id' then last = facts[i + 1] end
end
redis.call('DEL', copy)
for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
  if gone[entry[1]] then
    count = count + 1
  else
    redis.call('XADD', copy, entry[1], unpack(entry[2]))
  end
end
if count == 0 then
  redis.call('DEL', copy)
  return 0
end
if redis.call('EXISTS', copy) == 0 then
  redis.call('XADD', copy, last, 'none', '')
  redis.call('XDEL', copy, last)
end
redis.call('XSETID', copy, last)
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = {{}}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  redis.call('XGROUP', 'CREATE', copy, group.name, group['last-delivered-id'])
  local start = '-'
  while true do
    local pending = redis.call('XPENDING', stream, group.name, start, '+', 1000)
    for _, one in ipairs(pending) do
      if not gone[one[1]] then
        redis.call('XCLAIM', copy, group.name, one[2], 0, one[1], 'IDLE', one[3], 'RETRYCOUNT', one[4], 'FORCE',
          'JUSTID')
      end
    end
    if #pending < 1000 then break end
    start = '(' .. pending[#pending][1]
  end
end
redis.call('RENAME', copy, stream)
return count
"""
