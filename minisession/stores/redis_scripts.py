"""What `RedisStore` has Redis do in one step, in Lua.

Each script checks everything before its first write, and writes first what can be refused, because
Redis rolls nothing back.  KEYS are records, and last, where there is one, the index of the record's
user, which is written before the record.  Scripts compare bytes and never decode a record.  They
are sent in full: EVAL takes as long as EVALSHA (measured), and no restart, failover or
``SCRIPT FLUSH`` can have lost them.

In a Cluster, a slot that is being moved lets no key be made where it is moved from.  So a script
cannot write again what it has deleted there, and a script of two keys of which one is missing is
refused.
"""

# For a list or a hash, `pcall` returns an error: it is not a record of ours, and was never seen.
_SEEN = b"""\
local found = redis.pcall('GET', KEYS[1])
if found ~= ARGV[1] then
  if type(found) ~= 'table' or string.find(found.err, 'WRONGTYPE', 1, true) then return 0 end
  return found
end
"""

# 2: the index has grown by 32 entries, of which some may have ended.
_ENTER = b"""\
local function seconds()
  local now = redis.call('TIME')
  return string.format('%d.%06d', now[1], now[2])
end
local function enter(index, ttl, id)
  local added = redis.call('ZADD', index, seconds(), id)
  if redis.call('PTTL', index) < tonumber(ttl) then redis.call('PEXPIRE', index, ttl) end
  if added == 1 and redis.call('ZCARD', index) % 32 == 0 then return 2 end
  return added
end
"""

# KEYS index; ARGV ttl, id.  1 or 2: it is a new entry.
ENTER = (
    _ENTER
    + b"""\
return enter(KEYS[1], ARGV[1], ARGV[2])"""
)

# KEYS record.  Its bytes and its TTL; 0: the key is not ours.
LOAD = b"""\
local found = redis.pcall('GET', KEYS[1])
if type(found) ~= 'table' then return {found, redis.call('PTTL', KEYS[1])} end
if string.find(found.err, 'WRONGTYPE', 1, true) then return 0 end
return found"""

# KEYS record[, index]; ARGV ttl, id, data.
CREATE = (
    _ENTER
    + b"""\
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local entered = 1
if KEYS[2] then entered = enter(KEYS[2], ARGV[1], ARGV[2]) end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[1])
return math.max(entered, 1)"""
)

# KEYS record[, index]; ARGV seen, ttl, id, data.
REPLACE = (
    _ENTER
    + _SEEN
    + b"""\
if KEYS[2] then enter(KEYS[2], ARGV[2], ARGV[3]) end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[2])
return 1"""
)

# KEYS record[, index]; ARGV seen, ttl, id.
TOUCH = (
    _ENTER
    + _SEEN
    + b"""\
if KEYS[2] then enter(KEYS[2], ARGV[2], ARGV[3]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])"""
)

# KEYS record; ARGV seen.
DROP = (
    _SEEN
    + b"""\
return redis.call('DEL', KEYS[1])"""
)

# KEYS record.  0: there is none, or a tombstone, which stays.
DELETE = b"""\
local size = redis.pcall('STRLEN', KEYS[1])
if type(size) == 'table' then
  if string.find(size.err, 'WRONGTYPE', 1, true) then return 0 end
  return size
end
if size == 0 then return 0 end
return redis.call('DEL', KEYS[1])"""

# KEYS old record, new one, heir[, index]; ARGV seen, ttl, new id, data, tombstone's ttl, heir.
ROTATE = (
    _ENTER
    + _SEEN
    + b"""\
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local entered = 1
if KEYS[4] then entered = enter(KEYS[4], ARGV[2], ARGV[3]) end
if ARGV[2] ~= '0' then redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[2]) end
redis.call('SET', KEYS[1], '', 'PX', ARGV[5])
if ARGV[6] == '' then redis.call('DEL', KEYS[3])
else redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[5]) end
return math.max(entered, 1)"""
)

# Where memory is full, the tombstone takes the place of what it buries: after DEL, SET is allowed.
# KEYS record[, heir]; ARGV seen, tombstone's ttl, heir.
BURY = (
    _SEEN
    + b"""\
local buried = redis.pcall('SET', KEYS[1], '', 'PX', ARGV[2])
if type(buried) == 'table' and buried.err then
  if not string.find(buried.err, 'OOM', 1, true) then return buried end
  redis.call('DEL', KEYS[1])
  redis.pcall('SET', KEYS[1], '', 'PX', ARGV[2])
end
if KEYS[2] and ARGV[3] == '' then redis.pcall('DEL', KEYS[2]) end
if KEYS[2] and ARGV[3] ~= '' then redis.pcall('SET', KEYS[2], ARGV[3], 'PX', ARGV[2]) end
return 1"""
)

# The only script with keys that it was not given: on one node it may, and by single steps one might
# never catch up.
# KEYS tombstone; ARGV what keys of heirs begin with, and those of records.  2: no end of heirs.
END = b"""\
local key = KEYS[1]
for _ = 1, 1000 do
  if redis.call('STRLEN', key) > 0 then return redis.call('DEL', key) end
  local tagged = string.find(key, '^[^{]*{[^}]+}')
  local heir = redis.call('GET', ARGV[1] .. (tagged and key or '{' .. key .. '}'))
  if not heir then return 0 end
  key = ARGV[2] .. heir
end
return 2"""

# Until 7.2 the time goes on while a script runs, and a machine may be busy with something else for
# a while.
# KEYS records; ARGV tombstone's ttl.  Of each: -1: it lives; 0: there is none; else when it became
# a tombstone, by Redis' clock, in ms; 1 where that is not known, since another program has moved
# its end.
STATES = b"""\
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function became_one(key)
  local before, left, after
  repeat
    before, left, after = now(), redis.call('PTTL', key), now()
  until after - before <= 1
  if left < 0 then return 0 end
  if left > tonumber(ARGV[1]) then return 1 end
  return after + left - ARGV[1]
end
local states = {}
for number, key in ipairs(KEYS) do
  local size = redis.pcall('STRLEN', key)
  if type(size) ~= 'table' then states[number] = size > 0 and -1 or became_one(key)
  elseif string.find(size.err, 'WRONGTYPE', 1, true) then states[number] = 0
  else return size end
end
return states"""

# KEYS index; ARGV since (s; to 0: before now), ids.  How many have gone, not refreshed since.
PRUNE = b"""\
local now, before, dead = redis.call('TIME'), tonumber(ARGV[1]), {}
if before <= 0 then before = before + now[1] + now[2] / 1000000 end
for i = 2, #ARGV do
  local refreshed = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if refreshed and tonumber(refreshed) <= before then dead[#dead + 1] = ARGV[i] end
end
if #dead == 0 then return 0 end
return redis.call('ZREM', KEYS[1], unpack(dead))"""
