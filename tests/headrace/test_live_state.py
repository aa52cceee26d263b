"""The state machine of a live query: whatever is cut wherever, rows end as the table's, and nothing is told twice."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace._live_events import Change, ChangeType, LiveEvent, Ready, Reset, Snapshot
from headrace._live_messages import LiveOptions, ServerMessage
from headrace._live_state import MAX_FAILURES, LiveState, Phase
from headrace._row_set import RowSet, key_columns
from tests.headrace.model_server import ModelSubscription, ModelTable


class Wire:
    """A client's state, its rows and the server's side, with a connection between them that can be cut anywhere."""

    def __init__(self, table: ModelTable, options: LiveOptions | None) -> None:
        self.table = table
        self.rows = RowSet()
        self.state = LiveState(options, can_resume=self._can_resume)
        self.server: ModelSubscription | None = None
        self.flight: list[ServerMessage] = []
        self.told: list[LiveEvent] = []

    def _can_resume(self, schema: list[Any]) -> bool:
        key = key_columns("SELECT * FROM t", schema, None)
        self.rows.use_key(key)
        return key != ("_seq",)

    def connect(self) -> None:
        if self.state.phase is Phase.IDLE:
            options = self.state.subscribe()
            wire = None if options is None else json.loads(msgspec.json.encode(options))
            self.server = ModelSubscription(self.table, "s", wire)
            self._send(self.server.first)

    def cut(self) -> None:
        self.server = None
        self.flight.clear()
        self._tell(self.state.lost())

    def pump(self) -> None:
        if self.server is not None:
            self._send(self.server.pump())

    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.flight))):
            message = self.flight.pop(0)
            if message.type == "pong":
                self.state.caught_up(int(message.seq or 0))
                continue
            self._tell(self.state.receive(message))
            if self.state.wants_batch:
                self.state.wants_batch = False
                assert self.server is not None
                self._send(self.server.next_batch())

    def reconnect(self, count: int) -> None:
        self.cut()
        self.connect()
        self.pump()
        self.deliver(count)

    def ping(self) -> None:
        if self.server is not None and self.server.reached >= self.table.seq:
            self.flight.append(ServerMessage("pong", seq=self.server.reached))

    def settle(self) -> None:
        """Let everything arrive."""
        for _ in range(1000):
            self.connect()
            self.pump()
            if not self.flight:
                return
            self.deliver(len(self.flight))
        raise AssertionError("the exchange does not end")

    def _send(self, messages: list[dict[str, Any]]) -> None:
        self.flight += [msgspec.json.decode(json.dumps(message), type=ServerMessage) for message in messages]

    def _tell(self, events: list[LiveEvent]) -> None:
        for event in events:
            self.told.append(event)
            self.rows.apply(event)


def check_told(events: list[LiveEvent]) -> None:
    """The grammar of events, and that no change is told twice or out of order."""
    ready, last, gathered = False, 0, set()
    for event in events:
        if isinstance(event, Reset):
            ready, last, gathered = False, 0, set()
        elif isinstance(event, Snapshot):
            assert not ready
            seqs = {row["_seq"] for row in event.rows}
            assert len(seqs) == len(event.rows)
            assert not seqs & gathered
            gathered |= seqs
        elif isinstance(event, Ready):
            assert not ready
            ready, last = True, event.seq or 0
        else:
            assert ready
            assert event.seq > last
            assert all(last < row["_seq"] <= event.seq for row in event.rows)
            last = event.seq


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.sampled_from("ab")),
        st.tuples(st.just("delete"), st.integers(0, 3)),
        st.tuples(st.just("reconnect"), st.integers(0, 5)),
        st.sampled_from([("cut",), ("pump",), ("ping",), ("forget_log",), ("settle",), ("settle",)]),
    ),
    min_size=20,
    max_size=60,
)


def play(table: ModelTable, wire: Wire, moves: list[tuple[Any, ...]]) -> None:
    wire.connect()
    for name, *arguments in moves:
        if name in {"put", "delete"}:
            getattr(table, name)(*arguments)
        elif name == "forget_log":
            # What is on its way was read from the log already.
            wire.pump()
            table.forget_log()
            if wire.server is not None and wire.server.reached < table.begins:
                wire.cut()
        else:
            getattr(wire, name)(*arguments)


@settings(max_examples=300, deadline=None)
@given(moves=steps, keyless=st.booleans(), batch=st.integers(1, 4), overlap=st.integers(0, 2))
def test_rows_end_as_the_tables(moves: list[tuple[Any, ...]], keyless: bool, batch: int, overlap: int) -> None:
    table = ModelTable(keyless, overlap=overlap)
    wire = Wire(table, LiveOptions(batch_size=batch))
    play(table, wire, moves)
    wire.settle()
    assert wire.state.failure is None
    expected = {row["_seq" if keyless else "id"]: row for row in table.rows.values()}
    assert dict(wire.rows.rows) == expected
    check_told(wire.told)


@settings(max_examples=200, deadline=None)
@given(before=st.lists(st.integers(0, 5), max_size=4), moves=steps)
def test_changes_alone_lead_from_the_start_to_the_end(before: list[int], moves: list[tuple[Any, ...]]) -> None:
    table = ModelTable()
    for key in before:
        table.put(key, "old")
    rows = dict(table.rows)
    wire = Wire(table, None)
    wire.connect()
    wire.deliver(1)
    play(table, wire, moves)
    wire.settle()
    check_told(wire.told)
    for event in wire.told:
        if isinstance(event, Reset):
            rows = {}
        elif isinstance(event, Change):
            for row in event.old_rows if event.type is ChangeType.DELETE else ():
                del rows[row["id"]]
        for row in event.rows if isinstance(event, Change | Snapshot) else ():
            rows[row["id"]] = row
    assert rows == table.rows


def test_a_cursor_of_an_earlier_live_query_goes_on_behind_it() -> None:
    table = ModelTable()
    table.put(1, "a")
    table.put(2, "b")
    table.delete(1)
    wire = Wire(table, LiveOptions(from_seq=1))
    wire.settle()
    assert [type(event) for event in wire.told] == [Ready, Change, Change]
    upsert, delete = wire.told[1:]
    assert isinstance(upsert, Change)
    assert isinstance(delete, Change)
    assert (upsert.type, upsert.rows) == (ChangeType.UPSERT, [{"id": 2, "value": "b", "_seq": 2}])
    assert (delete.type, delete.old_rows, delete.seq) == (ChangeType.DELETE, [{"id": 1, "value": "a", "_seq": 1}], 3)


def test_a_cursor_that_is_too_old_gives_a_reset_and_everything() -> None:
    table = ModelTable()
    table.put(1, "a")
    table.put(2, "b")
    table.forget_log()
    wire = Wire(table, LiveOptions(from_seq=1))
    wire.settle()
    reset, snapshot, ready = wire.told
    assert isinstance(reset, Reset)
    assert reset.code == "RESUME_TOO_OLD"
    assert isinstance(snapshot, Snapshot)
    assert len(snapshot.rows) == 2
    assert ready == Ready(2)


def test_a_pong_moves_the_cursor_of_an_idle_query() -> None:
    table = ModelTable()
    table.put(1, "a")
    wire = Wire(table, LiveOptions())
    wire.settle()
    wire.state.caught_up(40)
    wire.cut()
    assert wire.state.subscribe() == LiveOptions(from_seq=40)


def test_a_pong_does_not_move_what_is_still_loading() -> None:
    state = LiveState(LiveOptions())
    state.subscribe()
    state.caught_up(40)
    assert state.lost() == []
    assert state.subscribe() == LiveOptions()


def error(code: str) -> ServerMessage:
    return ServerMessage("error", code=code, message="because")


ACK = ServerMessage("subscription_ack", total_rows=0)


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNAUTHORIZED", "INVALID_SQL", "UNSUPPORTED", "SOMETHING_NEW"])
def test_errors_that_are_final_end_it(code: str) -> None:
    state = LiveState(LiveOptions())
    state.subscribe()
    state.receive(error(code))
    assert state.phase is Phase.ENDED
    assert state.failure is not None
    assert state.failure.code == code


def test_the_limit_of_subscriptions_is_final_at_first_and_transient_after_a_cut() -> None:
    first = LiveState(None)
    first.subscribe()
    first.receive(error("SUBSCRIPTION_LIMIT_EXCEEDED"))
    assert first.phase is Phase.ENDED
    again = LiveState(None)
    again.subscribe()
    again.receive(ACK)
    again.lost()
    for _ in range(MAX_FAILURES - 1):
        again.subscribe()
        again.receive(error("SUBSCRIPTION_LIMIT_EXCEEDED"))
        assert again.phase is Phase.IDLE
    again.subscribe()
    again.receive(error("SUBSCRIPTION_LIMIT_EXCEEDED"))
    assert again.phase is Phase.ENDED


def test_a_cursor_beyond_the_newest_commit_starts_over() -> None:
    table = ModelTable()
    table.put(1, "a")
    wire = Wire(table, LiveOptions())
    wire.settle()
    wire.cut()
    wire.state.cursor = 99  # the server came back from an older backup
    wire.settle()
    assert [type(event) for event in wire.told] == [Snapshot, Ready, Reset, Snapshot, Ready]
    assert dict(wire.rows.rows) == {1: table.rows[1]}


@pytest.mark.parametrize(
    "message",
    [
        ServerMessage("change", change_type="insert", seq=1),
        ServerMessage("initial_data_batch", rows=[]),
        ServerMessage("subscription_ack", batch_control=None, schema=[]),
    ],
)
def test_messages_out_of_place_end_it(message: ServerMessage) -> None:
    state = LiveState(LiveOptions())
    state.subscribe()
    if message.type == "subscription_ack":
        state.receive(ACK)
    state.receive(message)
    assert state.phase is Phase.ENDED
    assert state.failure is not None


def test_keys() -> None:
    schema = msgspec.convert(ModelTable().schema, list[Any])
    from headrace._answers import ColumnAnswer

    columns = msgspec.convert(schema, list[ColumnAnswer])
    both = [ColumnAnswer("a", "Int", 0, ("pk", "nn")), ColumnAnswer("b", "Int", 1, ("pk", "nn"))]
    assert key_columns("SELECT id FROM t", columns, None) == ("id",)
    assert key_columns("SELECT id FROM t", columns, ["value"]) == ("value",)
    assert key_columns("select * from t", both, None) == ("a", "b")
    assert key_columns("SELECT a, b FROM t", both, None) == ("_seq",)
