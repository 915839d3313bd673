-- Trace context for nginx: continue the client's W3C traceparent or mint one, sample 1 % of what is minted.
-- Everything here is compiled by LuaJIT: no call leaves the trace that the compiler records.
local bit = require "bit"
local floor = math.floor
local random = math.random
local tohex = bit.tohex
local sub = string.sub
local match = ngx.re.match
local var = ngx.var
local TRACEPARENT = [[^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$]]

local trace = {}

-- Each worker needs a sequence of its own.
function trace.seed()
    local file = assert(io.open("/dev/urandom", "rb"))
    local a, b, c, d, e, f = file:read(6):byte(1, 6)
    file:close()
    math.randomseed(((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f)
end

local function hex32()
    return tohex(floor(random() * 4294967296))
end

-- Returns the trace id; span id, parent's id and flags go into nginx's variables. Called by set_by_lua: the id needs no waiting,
-- and the other phases would make a coroutine for each request.
function trace.begin()
    var.span_id = hex32() .. hex32()
    local parent = var.http_traceparent
    if parent and match(parent, TRACEPARENT, "jo") then
        var.parent_id = sub(parent, 37, 52)
        var.trace_flags = sub(parent, 54, 55)
        return sub(parent, 4, 35)
    end
    if random() < 0.01 then
        var.trace_flags = "01"
    end
    return hex32() .. hex32() .. hex32() .. hex32()
end

return trace
