"""Whatever the wire format, a delta reads as the same messages; compressed ones are single gzip members."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.live.encoding import COMPRESSED_FROM, KEPT_FRAMES, Codec, Codecs
from server.live.messages import (
    BatchControl,
    BatchStatus,
    Compression,
    Failure,
    InitialDataBatch,
    Protocol,
    Serialization,
    SubscriptionAck,
)
from sql.live.interface import ChangeType, LiveChange, LiveDelta
from sql.wire import BigintMode
from tests.server.live.fakes import messages_in

PROTOCOLS = [Protocol(s, c) for s in Serialization for c in Compression]
CODECS = Codecs(BigintMode.AUTO)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), texts,
    texts.map(lambda text: text * 40), st.lists(st.integers(0, 255), max_size=20),
)  # fmt: skip
rows = st.dictionaries(texts, values, max_size=6)


@st.composite
def deltas(draw: st.DrawFn) -> LiveDelta:
    """The changes of a commit."""
    changes, seq = [], draw(st.integers(1, 2**60))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(list(ChangeType)))
        count = draw(st.integers(1, 4))
        news = [draw(rows) for _ in range(count)] if kind is not ChangeType.DELETE else []
        olds = [draw(rows) for _ in range(count)] if kind is not ChangeType.INSERT else []
        changes.append(LiveChange(kind, range(seq, seq + count), news, olds))
        seq += count
    return LiveDelta(seq - 1, changes)


def expected(delta: LiveDelta, name: str, mode: BigintMode = BigintMode.AUTO) -> list[dict[str, Any]]:
    """The messages that the protocol asks for, made without the encoder."""
    found = []
    for change in delta.changes:
        as_text = mode is BigintMode.STRING or change.seq > 2**53 - 1
        message: dict[str, Any] = {"type": "change", "subscription_id": name, "change_type": change.type.value}
        message["seq"] = str(change.seq) if as_text else change.seq
        if change.rows:
            message["rows"] = list(change.rows)
        if change.old_rows:
            message["old_values"] = list(change.old_rows)
        found.append(message)
    return found


@given(deltas(), st.lists(texts.filter(bool), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_delta_reads_the_same_in_every_format(delta: LiveDelta, names: list[str]) -> None:
    for protocol in PROTOCOLS:
        codec = CODECS[protocol]
        for name in names:
            frames = codec.changes(delta, name, codec.prefix(name))
            assert messages_in(frames) == expected(delta, name)
            for message, wanted in zip(messages_in(frames), expected(delta, name), strict=True):
                assert list(message) == list(wanted)  # and its fields stand in the same order


def payload(frame: bytes) -> bytes:
    """What a single frame holds."""
    return frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]


def big(text: str = "a value that repeats, ") -> LiveDelta:
    return LiveDelta(1, [LiveChange(ChangeType.INSERT, [1], [{"text": text * 200}], [])])


@pytest.mark.parametrize("serialization", list(Serialization))
def test_compressed_changes_are_one_gzip_member(serialization: Serialization) -> None:
    codec = CODECS[Protocol(serialization, Compression.GZIP)]
    plain = CODECS[Protocol(serialization, Compression.NONE)]
    delta = big()
    data = payload(codec.changes(delta, "s1", codec.prefix("s1")))
    wanted = payload(plain.changes(delta, "s1", plain.prefix("s1")))
    assert data[:2] == b"\x1f\x8b"
    assert len(data) < len(wanted)
    assert gzip.decompress(data) == wanted
    stream = zlib.decompressobj(31)
    assert b"".join(stream.decompress(data[at : at + 7]) for at in range(0, len(data), 7)) == wanted
    assert stream.eof
    assert stream.unused_data == b""


def test_short_messages_and_those_that_do_not_shrink_stay_as_they_are() -> None:
    codec = CODECS[Protocol()]
    for text in ("", "x" * 300):
        delta = LiveDelta(1, [LiveChange(ChangeType.INSERT, [1], [{"text": text}], [])])
        frame = codec.changes(delta, "s1", codec.prefix("s1"))
        assert frame[0] == 0x81
        assert len(payload(frame)) < COMPRESSED_FROM
    noise = "".join(chr(33 + (i * i * 7919 + i // 3) % 90) for i in range(600))
    shuffled = "".join(sorted(noise, key=lambda c: zlib.crc32((c + noise[:3]).encode())))
    for text in (noise, shuffled):
        delta = LiveDelta(1, [LiveChange(ChangeType.INSERT, [1], [{"text": text}], [])])
        frame = codec.changes(delta, "s1", codec.prefix("s1"))
        assert messages_in(frame) == expected(delta, "s1")
        shrunk = frame[0] == 0x82
        assert shrunk == (len(payload(frame)) < len(msgspec.json.encode(expected(delta, "s1")[0])))


def test_the_limit_of_compression_is_exact() -> None:
    codec, plain = CODECS[Protocol()], CODECS[Protocol(compression=Compression.NONE)]
    empty = len(msgspec.json.encode({"type": "error", "subscription_id": "", "code": "", "message": ""}))
    for size, opcode in ((COMPRESSED_FROM - 1, 0x81), (COMPRESSED_FROM, 0x82)):
        message = Failure("", "", "x" * (size - empty))
        assert len(payload(plain.encode(message))) == size
        assert codec.encode(message)[0] == opcode


def test_compression_and_rendering_are_done_once() -> None:
    codec = CODECS[Protocol()]
    delta = big()
    first = codec.changes(delta, "s1", codec.prefix("s1"))
    assert codec.changes(delta, "s1", codec.prefix("s1")) is first
    other = codec.changes(delta, "s2", codec.prefix("s2"))
    assert messages_in(other)[0]["rows"] == messages_in(first)[0]["rows"]
    (tail,) = codec.tails(delta)
    assert codec.tails(delta)[0] is tail
    for number in range(3 * KEPT_FRAMES):
        codec.changes(delta, f"n{number}", codec.prefix(f"n{number}"))
    frames = next(value for key, value in delta.renderings.items() if isinstance(key, tuple) and key[0] == "frames")
    assert isinstance(frames, dict)
    assert len(frames) == KEPT_FRAMES


@pytest.mark.parametrize(("mode", "seq"), [(BigintMode.AUTO, 5), (BigintMode.STRING, "5"), (BigintMode.NUMBER, 5)])
def test_seq_is_written_as_every_bigint(mode: BigintMode, seq: object) -> None:
    codec = Codec(Protocol(), mode)
    delta = LiveDelta(5, [LiveChange(ChangeType.DELETE, [5], [], [{"id": 1}])])
    assert messages_in(codec.changes(delta, "s", codec.prefix("s")))[0]["seq"] == seq


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_acks_and_batches_read_the_same_in_every_format(protocol: Protocol) -> None:
    control = BatchControl(0, has_more=False, status=BatchStatus.READY, last_seq_id=None)
    fresh = BatchControl(3, has_more=True, status=BatchStatus.LOADING_BATCH, last_seq_id=7, fresh=True)
    codec = CODECS[protocol]
    at = {"batch_num": 0, "has_more": False, "status": "ready", "last_seq_id": None}
    ack = SubscriptionAck("s", 5, control, [{"name": "id", "data_type": "BigInt", "index": 0}], resumed=True)
    assert messages_in(codec.encode(ack)) == [{
        "type": "subscription_ack", "subscription_id": "s", "total_rows": 5, "batch_control": at,
        "schema": [{"name": "id", "data_type": "BigInt", "index": 0}], "resumed": True,
    }]  # fmt: skip
    batch = InitialDataBatch("s", [{"id": n, "body": "text"} for n in range(300)], fresh)
    (found,) = messages_in(codec.encode(batch))
    assert found["batch_control"] == {
        "batch_num": 3, "has_more": True, "status": "loading_batch", "last_seq_id": 7, "fresh": True,
    }  # fmt: skip
    assert found["rows"] == batch.rows
