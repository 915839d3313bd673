"""`python -m edgeproxy`: the same as the `edgeproxy` command."""

from edgeproxy.platform import require_linux

require_linux()

from edgeproxy.cli import main  # noqa: E402  - what it imports may not exist off Linux

if __name__ == "__main__":
    main()
