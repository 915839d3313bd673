"""How many workers a node has. Apart from the fleet, which a worker that has to know it need not load."""

import os

from edgeproxy.config import Config


def worker_count(config: Config) -> int:
    """How many workers the node has: "auto" is one for each processor that it may run on."""
    workers = config.node.workers
    return len(os.sched_getaffinity(0)) if workers == "auto" else workers
