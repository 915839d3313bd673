-- A cached response straight from Redis, as operators write it: one GET a hit, on a pooled connection.
local redis = require "nginx.redis"

local cached = {}

function cached.serve(port)
    local client = redis:new()
    client:set_timeouts(1000, 1000, 1000)
    local ok, err = client:connect("127.0.0.1", port)
    if not ok then
        ngx.log(ngx.ERR, "redis: ", err)
        return ngx.exec("@origin")
    end
    local body
    body, err = client:get("bench:" .. ngx.var.request_uri)
    if not body or body == ngx.null then
        if err then
            ngx.log(ngx.ERR, "redis: ", err)
        end
        return ngx.exec("@origin")
    end
    client:set_keepalive(60000, 128)
    ngx.header["Content-Type"] = "text/html"
    ngx.header["Content-Length"] = #body
    ngx.header["X-Trace-Id"] = ngx.var.trace_id
    ngx.header["X-Cache"] = "HIT"
    ngx.print(body)
end

return cached
