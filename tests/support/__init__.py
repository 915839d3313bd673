"""The parts that tests put together: real sockets, real processes, free ports, ready when their context is entered."""

from tests.support.client import Client, Response, http_client, request
from tests.support.messages import Broken, Cut, Message
from tests.support.nginx import Nginx
from tests.support.node import Node, Record, Recording
from tests.support.origin import (
    Conversation,
    Handler,
    Origin,
    Received,
    chunked,
    echo,
    gated,
    pieces_of,
    raw,
    reply,
    silent,
    until_close,
)
from tests.support.otlp import OtlpReceiver, ReceivedSpan
from tests.support.ports import free_port
from tests.support.redis_cluster import RedisServers, slot_of
from tests.support.redis_monitor import Monitored
from tests.support.redis_server import RedisServer
from tests.support.wait import until

__all__ = [
    "Broken",
    "Client",
    "Conversation",
    "Cut",
    "Handler",
    "Message",
    "Monitored",
    "Nginx",
    "Node",
    "Origin",
    "OtlpReceiver",
    "Received",
    "ReceivedSpan",
    "Record",
    "Recording",
    "RedisServer",
    "RedisServers",
    "Response",
    "chunked",
    "echo",
    "free_port",
    "gated",
    "http_client",
    "pieces_of",
    "raw",
    "reply",
    "request",
    "silent",
    "slot_of",
    "until",
    "until_close",
]
