"""Varnish: varnishd with malloc storage, and varnishncsa that writes its log; both count as the server."""

from bench import machine
from bench.process import find_tool
from bench.servers.base import Server, Site

# varnishncsa escapes what the client sent so that a line stays JSON (-j).
LOG_FORMAT = (
    '{"ts":"%{%Y-%m-%dT%H:%M:%S}t","trace_id":"%{X-Trace-Id}o","span_id":"%{X-Span-Id}i","client":"%h","method":"%m",'
    '"host":"%{Host}i","uri":"%U","query":"%q","protocol":"%H","status":%s,"bytes_in":%I,"bytes_out":%O,'
    '"cache":"%{Varnish:hitmiss}x","handling":"%{Varnish:handling}x","first_byte_s":%{Varnish:time_firstbyte}x,"duration_us":%D,'
    '"user_agent":"%{User-agent}i","referer":"%{Referer}i"}'
)


class Varnish(Server):
    """Manager, child and log writer; conf/edge.vcl."""

    name = "varnish"
    title = "Varnish"
    cache_header = "X-Cache"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._varnishd = find_tool("varnishd", "apt-get install varnish")
        self._varnishncsa = find_tool("varnishncsa", "apt-get install varnish")

    def launch(self) -> None:
        home = self.site.shared_memory / "varnish"
        vcl = self.configure("edge.vcl")
        parameters = {
            "thread_pools": "1",  # one a core is enough
            "thread_pool_min": "100",
            "vsl_space": "80M",
            "timeout_idle": "75",
        }
        options = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        listen, store = f"127.0.0.1:{self.port}", "malloc,512m"
        varnishd = self.start(
            self._varnishd, "-F", "-n", str(home), "-a", listen, "-f", str(vcl), "-s", store, "-j", "none", *options
        )
        varnishd.wait_ready((home / "_.vsm_child" / "_.index").exists)
        log = self.start(self._varnishncsa, "-n", str(home), "-a", "-w", str(self.access_log), "-j", "-F", LOG_FORMAT)
        log.wait_ready(self.access_log.exists)

    def worker_pid(self) -> int:
        manager, _log = self._programs
        return next(pid for pid in self.pids() if (stat := machine.process_stat(pid)) and stat.parent == manager.pid)

    def version(self) -> str:
        return machine.first_output_line(self._varnishd, "-V").removeprefix("varnishd (").partition(" revision")[0]
