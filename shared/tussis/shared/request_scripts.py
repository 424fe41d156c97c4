"""The atomic steps of requests with an Idempotency-Key on the broker."""

from __future__ import annotations

from typing import Final

# KEYS: the key. ARGV: owner, fingerprint, milliseconds of the claim, seconds for which the key is kept.
# Returns the state, the time of the first request in milliseconds, and the answer with its content.
REQUEST_CLAIM_SCRIPT: Final = """\
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'busy_until', 'at', 'answer', 'content')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if known[1] and known[1] ~= ARGV[2] then return {'reused'} end
if known[4] then return {'answered', known[3], known[4], known[5]} end
if known[2] and tonumber(known[2]) > now then return {'busy'} end
local at = known[3] or string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fingerprint', ARGV[2], 'at', at,
    'busy_until', string.format('%.0f', now + ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {'claimed', at}
"""
# KEYS: the key. ARGV: owner, milliseconds of the claim.
REQUEST_RENEW_SCRIPT: Final = """\
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'busy_until', string.format('%.0f', time[1] * 1000 + ARGV[2]))
return 1
"""
# KEYS: the key. ARGV: owner, then answer, content and seconds for which they are kept; or nothing, to free the key.
REQUEST_END_SCRIPT: Final = """\
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'busy_until')
if ARGV[2] then
  redis.call('HSET', KEYS[1], 'answer', ARGV[2], 'content', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
else
  redis.call('HDEL', KEYS[1], 'fingerprint')
end
return 1
"""
