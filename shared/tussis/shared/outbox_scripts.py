"""The atomic steps of a notifier's outbox on the broker."""

from __future__ import annotations

from typing import Final

from tussis.shared.ledger_scripts import WORKERS_OWN

#: The field of an entry of the stream of undelivered webhooks.
WEBHOOK_FIELD: Final = "webhook"

# KEYS lease; ARGV own token, lease in ms. Returns '' when the caller holds the lease, otherwise the holder's token.
NOTIFY_LEAD_SCRIPT: Final = f"""{WORKERS_OWN}\
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
"""
# KEYS lease, outbox, state, again; ARGV token, number of entries to remove from the list of webhooks to deliver again,
# number of fields of the state to set, then field and value of each (an empty value removes it), then id and JSON of
# each webhook. Returns the number of webhooks that are new, or -1 without the lease. A full broker refuses it.
NOTIFY_ADD_SCRIPT: Final = """\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local new, first = 0, 4 + 2 * ARGV[3]
for i = first, #ARGV, 2 do new = new + redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
for i = 4, first - 1, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[3], ARGV[i]) end
end
if ARGV[2] ~= '0' then redis.call('LTRIM', KEYS[4], ARGV[2], -1) end
return new
"""
# KEYS lease, outbox; ARGV token, id, JSON.
NOTIFY_UPDATE_SCRIPT: Final = f"""{WORKERS_OWN}\
if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end
"""
# KEYS state; ARGV field and value of each (an empty value removes it).
NOTIFY_SET_STATE_SCRIPT: Final = f"""{WORKERS_OWN}\
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
"""
# KEYS outbox, undelivered; ARGV id, JSON, number of webhooks to keep. Returns the number that left.
NOTIFY_GIVE_UP_SCRIPT: Final = f"""{WORKERS_OWN}\
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
local before = redis.call('XLEN', KEYS[2])
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], '*', '{WEBHOOK_FIELD}', ARGV[2])
return before + 1 - redis.call('XLEN', KEYS[2])
"""
# KEYS undelivered, again; ARGV entry id, JSON. Returns 1, or 0 if the entry is gone.
NOTIFY_REDELIVER_SCRIPT: Final = f"""{WORKERS_OWN}\
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
"""
