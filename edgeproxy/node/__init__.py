"""The node's processes and what they share.

`supervisor`, `worker`, `scribe` and `status` are imported by those who run them, so that nobody loads too much.
"""

import edgeproxy.imports  # noqa: F401  before anything imports structlog
from edgeproxy.node.control import Control, ControlWord, Description, NodeState, TracingState
from edgeproxy.node.errors import (
    AlreadyRunningError,
    ControlPageError,
    ListenError,
    NodeError,
    NotRunningError,
    RuntimeDirError,
    StartError,
)
from edgeproxy.node.runtime import RuntimeDir

__all__ = [
    "AlreadyRunningError",
    "Control",
    "ControlPageError",
    "ControlWord",
    "Description",
    "ListenError",
    "NodeError",
    "NodeState",
    "NotRunningError",
    "RuntimeDir",
    "RuntimeDirError",
    "StartError",
    "TracingState",
]
