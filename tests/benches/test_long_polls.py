"""Many polls read at once, and what the bench of waiting polls reads of the server's process."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benches.live_client import ClientFailed
from benches.long_polls import answers, whole_body
from benches.peers import Unavailable
from benches.topic_waiting import allow_files, busy_share, processor_ticks, resident_bytes

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def test_answers_come_in_any_order(pairs: list[Pair]) -> None:
    text = answer(b"second")

    def serve() -> None:
        pairs[2][0].sendall(answer(b"third"))
        for place in range(len(text)):
            pairs[1][0].sendall(text[place : place + 1])
        pairs[0][0].sendall(answer(b"first"))

    began = time.monotonic_ns()
    server = threading.Thread(target=serve)
    server.start()
    found = answers([theirs for _, theirs in pairs])
    server.join()
    assert [each.body for each in found] == [b"first", b"second", b"third"]
    assert all(began < each.arrived < time.monotonic_ns() for each in found)


def test_a_poll_that_fails_is_no_measurement(pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    ours.sendall(answer(b"late", b"410 Gone"))
    with pytest.raises(ClientFailed, match="410"):
        answers([theirs])
    ours.close()
    with pytest.raises(ClientFailed, match="ended"):
        answers([theirs])
    with pytest.raises(ClientFailed, match="0 of 1 answers"):
        answers([pairs[1][1]], 0.05)


def test_a_poll_brings_one_message(pairs: list[Pair]) -> None:
    pairs[0][0].sendall(answer(b'{"messages":[],"next_offset":0,"has_more":false}'))
    [empty] = answers([pairs[0][1]])
    with pytest.raises(ClientFailed, match="0 messages"):
        empty.message()
    message = b'{"topic_id":"a.b","partition_id":0,"offset":4,"payload":"d2F0ZXI=","timestamp_ms":1,"op":"Insert"}'
    pairs[0][0].sendall(answer(b'{"messages":[%b],"next_offset":5,"has_more":false}' % message))
    [full] = answers([pairs[0][1]])
    assert (full.message().offset, full.message().payload) == (4, b"water")


def test_a_body_is_whole_at_its_length() -> None:
    text = answer(b"abc")
    assert [whole_body(text[:end]) for end in (0, 10, len(text) - 1, len(text))] == [None, None, None, b"abc"]


def test_processor_time_and_memory_of_a_process() -> None:
    before = processor_ticks(os.getpid())
    while processor_ticks(os.getpid()) == before:
        sum(range(10_000))
    assert busy_share(os.getpid(), 0.01) >= 0
    assert resident_bytes(os.getpid()) > 1_000_000


def test_a_limit_of_files_that_cannot_be_raised_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_files(soft)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    if hard != resource.RLIM_INFINITY:
        with pytest.raises(Unavailable, match="ulimit"):
            allow_files(hard + 1)
