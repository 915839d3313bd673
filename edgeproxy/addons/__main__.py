"""`python -m edgeproxy.addons [all|trace_inject|edge_cache|access_log]…`: the paths of these scripts, for
`mitmdump -s`.
"""

import sys
from pathlib import Path

SCRIPTS = ("all", "trace_inject", "edge_cache", "access_log")


def main(names: list[str]) -> None:
    """Print the path of each script that is named, one a line; by default that of the one that holds all."""
    for name in names or ["all"]:
        if name not in SCRIPTS:
            sys.exit(f"python -m edgeproxy.addons: {name} is none of its scripts; {', '.join(SCRIPTS)} are")
        sys.stdout.write(f"{Path(__file__).with_name(f'{name}.py')}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
