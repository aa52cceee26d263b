"""Bounds of topics and their consumers, with their defaults."""

from __future__ import annotations

import msgspec

MIB = 1 << 20


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times seconds."""

    visibility_timeout: float = 60.0
    """How long a consumer holds what it was given before others may have it."""
    max_visibility_timeout: float = 43_200.0
    """The longest such time that a consumer may ask for."""
    max_deliveries: int = 0
    """Deliveries after which a message goes to the dead-letter topic, for topics that say nothing; 0: never."""
    max_poll_seconds: float = 60.0
    """How long a consumer may wait for messages in one request."""
    max_batch_messages: int = 10_000
    """Messages of one answer, at most."""
    max_batch_bytes: int = 8 * MIB
    """Bytes of the payloads of one answer, about; one message always comes."""
    max_message_bytes: int = MIB
    """Largest payload that may be produced."""
    max_key_bytes: int = 4096
    """Longest key that may be produced."""
    max_waiting: int = 50_000
    """Consumers that may wait at a time."""
    retention_seconds: int = 7 * 86_400
    """Retention of topics that are created without one."""
    retention_bytes: int = 1 << 30
