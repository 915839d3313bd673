"""The origin's side: `pool` keeps connections, `connection` speaks HTTP/1 on one, `fetch` is one request's way."""
