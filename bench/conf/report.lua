-- Makes wrk say its figures in full: load.py reads this line. No request or response hook: those would slow wrk down.
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '\nWRK {"requests":%d,"duration_us":%d,"bytes":%.0f,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,'
            .. '"latency_us":{"p50":%d,"p90":%d,"p99":%d,"p99.9":%d,"max":%d}}\n',
        summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
        latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max))
end
