"""What a user imports and types: the Python client, and the `headrace` command.

    with headrace.connect("http://127.0.0.1:2900", user="admin", password="…") as db:
        for event in db.live("SELECT * FROM app.messages"):
            ...

A name is imported from its module when it is first asked for: the command, which starts the server, needs none of
them, and `import headrace` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace._answers import User
    from headrace._backoff import RetryPolicy
    from headrace._client import AsyncClient, aconnect
    from headrace._exceptions import (
        AuthenticationFailed,
        ClaimLost,
        ClientClosed,
        ConnectionFailed,
        DigestMismatch,
        ExecutionFailed,
        FileNotFound,
        FileRefused,
        HeadraceError,
        InvalidAnswer,
        InvalidParameter,
        InvalidSql,
        LimitExceeded,
        LiveError,
        MessageTooLarge,
        OffsetOutOfRange,
        PermissionDenied,
        QueryTimedOut,
        RateLimited,
        RequestRefused,
        RequestTimedOut,
        ResponseError,
        ServerFault,
        SqlError,
        SubscriptionLimitExceeded,
        TableNotFound,
        TopicNotFound,
        TransactionConflict,
        Unavailable,
        UnexpectedRows,
        UnsupportedSql,
    )
    from headrace._files import FileRef
    from headrace._live import LiveRows, LiveStream
    from headrace._live_events import Change, ChangeType, LiveEvent, Ready, Reset, Snapshot
    from headrace._live_messages import Compression, Serialization
    from headrace._live_settings import ConnectionState, LiveSettings
    from headrace._result import Column, Result
    from headrace._sync import Client, SyncLiveRows, SyncLiveStream, connect
    from headrace._sync_topics import SyncConsumer, SyncTopic
    from headrace._topic_messages import Message, MessageOrigin, MessagePosition, NewMessage, SyncMessage
    from headrace._topics import Consumer, Topic

__all__ = [
    "AsyncClient",
    "AuthenticationFailed",
    "Change",
    "ChangeType",
    "ClaimLost",
    "Client",
    "ClientClosed",
    "Column",
    "Compression",
    "ConnectionFailed",
    "ConnectionState",
    "Consumer",
    "DigestMismatch",
    "ExecutionFailed",
    "FileNotFound",
    "FileRef",
    "FileRefused",
    "HeadraceError",
    "InvalidAnswer",
    "InvalidParameter",
    "InvalidSql",
    "LimitExceeded",
    "LiveError",
    "LiveEvent",
    "LiveRows",
    "LiveSettings",
    "LiveStream",
    "Message",
    "MessageOrigin",
    "MessagePosition",
    "MessageTooLarge",
    "NewMessage",
    "OffsetOutOfRange",
    "PermissionDenied",
    "QueryTimedOut",
    "RateLimited",
    "Ready",
    "RequestRefused",
    "RequestTimedOut",
    "Reset",
    "ResponseError",
    "Result",
    "RetryPolicy",
    "Serialization",
    "ServerFault",
    "Snapshot",
    "SqlError",
    "SubscriptionLimitExceeded",
    "SyncConsumer",
    "SyncLiveRows",
    "SyncLiveStream",
    "SyncMessage",
    "SyncTopic",
    "TableNotFound",
    "Topic",
    "TopicNotFound",
    "TransactionConflict",
    "Unavailable",
    "UnexpectedRows",
    "UnsupportedSql",
    "User",
    "aconnect",
    "connect",
]

_HOMES = {
    "_answers": ("User",),
    "_backoff": ("RetryPolicy",),
    "_client": ("AsyncClient", "aconnect"),
    "_files": ("FileRef",),
    "_live": ("LiveRows", "LiveStream"),
    "_live_events": ("Change", "ChangeType", "LiveEvent", "Ready", "Reset", "Snapshot"),
    "_live_messages": ("Compression", "Serialization"),
    "_live_settings": ("ConnectionState", "LiveSettings"),
    "_result": ("Column", "Result"),
    "_sync": ("Client", "SyncLiveRows", "SyncLiveStream", "connect"),
    "_sync_topics": ("SyncConsumer", "SyncTopic"),
    "_topic_messages": ("Message", "MessageOrigin", "MessagePosition", "NewMessage", "SyncMessage"),
    "_topics": ("Consumer", "Topic"),
}
"""Where the names come from; all others are exceptions."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "_exceptions")
    value = getattr(import_module(f"headrace.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
