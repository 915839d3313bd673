"""What can go wrong with a node as a whole.

Each error has a stable `code`; its message is one sentence for an operator and says what to do about it.
"""


class NodeError(Exception):
    """A node can't be started, found or read; the message is meant for an operator."""

    code = "node"


class RuntimeDirError(NodeError):
    """The runtime directory can't be made or must not be used."""

    code = "runtime_dir"


class CacheDirError(NodeError):
    """The cache directory can't be made or must not be used."""

    code = "cache_dir"


class AlreadyRunningError(NodeError):
    """Another supervisor holds the runtime directory."""

    code = "already_running"


class NotRunningError(NodeError):
    """No node runs on the runtime directory."""

    code = "not_running"


class ControlPageError(NodeError):
    """A file that should be a control page is none, or one of another version."""

    code = "control_page"


class ListenError(NodeError):
    """An address can't be listened on."""

    code = "listen"


class StartError(NodeError):
    """The node's processes did not come up."""

    code = "start"
