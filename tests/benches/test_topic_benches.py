"""The benches of topics and files against a real server: small, but whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches import file_transfer, topic_retention, topic_sources, topic_waiting, topic_wake_up
from benches.peer_headrace import Headrace
from benches.runner import Options
from benches.topic_peers import decode_consumed
from benches.web import send

SHORT = Options(rounds=1, seconds=0.1, only=frozenset({"headrace", "echo"}))


@pytest.fixture
def headrace() -> Iterator[Headrace]:
    with tempfile.TemporaryDirectory() as folder:
        running = Headrace(topic_retention.ENVIRONMENT)
        try:
            running.start(Path(folder))
            yield running
        finally:
            running.stop()


def test_a_row_reaches_each_topic_on_its_table(headrace: Headrace) -> None:
    topic_sources.attach(headrace, 4)
    headrace.sql("INSERT INTO bench.notes_4 (id, room, author, body, stars) VALUES (7, 'r', 'a', 'water', 1)")
    for number in range(4):
        body = b'{"topic_id":"bench.notes_4_%d","start":"Earliest"}' % number
        answer = decode_consumed(send("POST", f"{headrace.base}/v1/api/topics/consume", body, headrace.headers))
        assert [b'"water"' in message.payload for message in answer.messages] == [True]


def test_one_poll_is_woken_by_each_row() -> None:
    [report] = topic_wake_up.run(SHORT)
    assert [row.system for row in report.rows] == [topic_wake_up.READER, topic_wake_up.GROUP]
    assert all(int(row.details[1]) > 0 for row in report.rows)


def test_all_polls_are_woken_by_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_waiting, "POLLS", 40)
    [report] = topic_waiting.run(SHORT)
    figures = {row.system: row.figure for row in report.rows}
    assert figures["first poll woken, ms"] <= figures[topic_waiting.WOKEN]
    assert f"aim: {topic_waiting.CPU}: at most 2" in str(report)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_samples_tell_of_space_and_offsets(headrace: Headrace) -> None:
    samples = list(topic_retention.observed(headrace, 0.2))
    assert len(samples) == topic_retention.SAMPLES
    assert samples[-1].next > samples[0].next > samples[0].first >= 0
    assert all(sample.used > 0 for sample in samples)


def test_files_go_in_and_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_transfer, "SIZE", 1_000_000)
    download, upload = file_transfer.run(SHORT)
    assert [row.system for row in download.rows] == ["Headrace", file_transfer.RESPONSE]
    assert [row.system for row in upload.rows] == [
        "Headrace",
        file_transfer.BARE,
        file_transfer.DURABLE,
        file_transfer.FORM,
    ]
