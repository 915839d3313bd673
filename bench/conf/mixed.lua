-- Sends one request in so many to another path: wrk … -s mixed.lua URL -- PATH EVERY. Both requests are made once.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

local usual, other, every
local sent = 0

function init(arguments)
    usual, other, every = wrk.format(), wrk.format(nil, arguments[1]), tonumber(arguments[2])
end

function request()
    sent = sent + 1
    if sent % every == 0 then
        return other
    end
    return usual
end
