"""The routes that sequences go by: each with something of what a route can say of the cache."""

ROUTES = """
[[route]]
match = "/plain/*"

[[route]]
match = "/keyed/*"
[route.cache]
query_deny = ["utm_*"]
query_sort = true
key_headers = ["X-Tenant"]
key_cookies = ["lang"]
key_host = "normalized"

[[route]]
match = "/ttl/*"
[route.cache]
default_ttl = 20.0
ttl_min = 2.0
ttl_max = 90.0
status_ttl = { "404" = 10.0, "5xx" = 2.0 }

[[route]]
match = "/fixed/*"
[route.cache]
ttl = 30.0
heuristic = false
client_no_cache = false

[[route]]
match = "/stale/*"
[route.cache]
stale_while_revalidate = 30.0
stale_if_error = 120.0

[[route]]
match = "/cookies/*"
[route.cache]
set_cookie = "strip"
authorized = true

[[route]]
match = "/kept/*"
[route.cache]
set_cookie = "keep"

[[route]]
match = "/bypass/*"
[route.cache]
bypass = ["cookie:session", "header:X-Preview", "query:nocache=1"]
methods = ["GET"]

[[route]]
match = "/off/*"
[route.cache]
enabled = false

[[route]]
match = "/small/*"
[route.cache]
max_object_bytes = 2000
"""
"""The routes that sequences go by. There is none for /nowhere/."""
