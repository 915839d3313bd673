# Varnish in front of the origin: trace context and cache status; everything else is its builtin VCL.
#
# What VCL lacks for this job: random bits and hexadecimal output, so a minted id is made of decimal digits (valid, but 3.3 random
# bits a digit instead of 4), and a span id for each attempt at the origin.
vcl 4.1;
import std;

backend origin {
    .host = "127.0.0.1";
    .port = "@ORIGIN_PORT@";
}

sub vcl_recv {
    if (req.http.traceparent ~ "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$") {
        set req.http.X-Trace-Id = regsub(req.http.traceparent, "^00-([0-9a-f]{32}).*$", "\1");
        set req.http.X-Trace-Flags = regsub(req.http.traceparent, "^.*-(..)$", "\1");
    } else {
        set req.http.X-Trace-Id = "" + std.integer(real=std.random(10000000, 99999999))
            + std.integer(real=std.random(10000000, 99999999)) + std.integer(real=std.random(10000000, 99999999))
            + std.integer(real=std.random(10000000, 99999999));
        if (std.random(0, 1) < 0.01) {
            set req.http.X-Trace-Flags = "01";
        } else {
            set req.http.X-Trace-Flags = "00";
        }
    }
    set req.http.X-Span-Id = "" + std.integer(real=std.random(10000000, 99999999))
        + std.integer(real=std.random(10000000, 99999999));
    set req.http.traceparent = "00-" + req.http.X-Trace-Id + "-" + req.http.X-Span-Id + "-" + req.http.X-Trace-Flags;
}

sub vcl_backend_fetch {
    unset bereq.http.X-Span-Id;
    unset bereq.http.X-Trace-Flags;
}

sub vcl_deliver {
    set resp.http.X-Trace-Id = req.http.X-Trace-Id;
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
}
