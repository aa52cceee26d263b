"""The harnesses themselves: a lost row, half a transfer, a `_seq` given twice and a sync tried again are all found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.faults import ENTRY, NUMBERS, Call, Faults, Place, Seen
from tests.crash.workload import ACCOUNTS, CLIENTS, OPENING, Book, Broken, Client, Row, verify

Tables = dict[str, dict[int, tuple[int, Row]]]


class Copy:
    """A server that does what the clients send, in memory."""

    def __init__(self) -> None:
        self.clients = [Client(number, 1) for number in range(CLIENTS)]
        self.seq = 0
        accounts = [{i: (self.next_seq(), (OPENING,)) for i in range(ACCOUNTS)} for _ in range(2)]
        self.tables: Tables = {"items": {}, "checking": accounts[0], "savings": accounts[1], "transfers": {}}
        for _ in range(60):
            for client in self.clients:
                operation = client.next_operation()
                client.pending.append(operation)
                client.settled += 1
                client._note(operation)
                for key, row in operation.items.items():
                    self.tables["items"].pop(key, None)
                    if row is not None:
                        self.tables["items"][key] = (self.next_seq(), row)
                for key, row in operation.transfers.items():
                    self.tables["transfers"][key] = (self.next_seq(), row)
                    self.move("checking", row[1], -row[3])
                    self.move("savings", row[2], row[3])

    def next_seq(self) -> int:
        """The next number."""
        self.seq += 1
        return self.seq

    def move(self, table: str, account: int, amount: int) -> None:
        """Change a balance."""
        balance = self.tables[table][account][1][0]
        self.tables[table][account] = (self.next_seq(), (balance + amount,))

    def prove(self) -> list[int]:
        """What the tests do after each crash."""
        return verify(self.clients, self.tables, [client.bounds() for client in self.clients])


def test_what_was_acknowledged_is_accepted() -> None:
    copy = Copy()
    assert copy.prove() == [60] * CLIENTS
    for client in copy.clients:
        client.settled -= 1  # as if the last answer had not come
    assert copy.prove() == [60] * CLIENTS


@pytest.mark.parametrize("table", ["items", "transfers"])
def test_a_lost_row_is_found(table: str) -> None:
    copy = Copy()
    copy.tables[table].popitem()
    with pytest.raises(Broken, match="acknowledged, but not as found"):
        copy.prove()


def test_a_row_that_is_older_than_acknowledged_is_found() -> None:
    copy = Copy()
    key, (seq, row) = next(iter(copy.tables["items"].items()))
    copy.tables["items"][key] = (seq, (row[0], row[1] - 1, row[2]))
    with pytest.raises(Broken, match="acknowledged, but not as found"):
        copy.prove()


@pytest.mark.parametrize("table", ["checking", "savings"])
def test_half_a_transfer_is_found(table: str) -> None:
    copy = Copy()
    copy.move(table, 3, 1)
    with pytest.raises(Broken, match="does not agree with the transfers"):
        copy.prove()


def test_half_of_what_was_not_acknowledged_is_found() -> None:
    copy = Copy()
    client = copy.clients[0]
    while len((operation := client.next_operation()).items) < 2:
        pass
    client.pending.append(operation)
    key, row = next(iter(operation.items.items()))
    copy.tables["items"].pop(key, None)
    if row is not None:
        copy.tables["items"][key] = (copy.next_seq(), row)
    with pytest.raises(Broken, match="client 0"):
        copy.prove()


def test_a_seq_that_was_given_before_is_found() -> None:
    copy, book = Copy(), Book()
    book.verify(copy.tables)
    book.verify(copy.tables)
    key, (seq, row) = copy.tables["items"].popitem()
    copy.tables["items"][key + 1] = (seq, row)
    with pytest.raises(Broken, match="given before"):
        book.verify(copy.tables)


def test_two_rows_with_one_seq_are_found() -> None:
    copy, book = Copy(), Book()
    copy.tables["items"][5] = (copy.seq, (0, 0, None))
    with pytest.raises(Broken, match="is both"):
        book.verify(copy.tables)


OPENED = [Seen(Call.OPEN, 1, 1, failed=False), Seen(Call.OPEN, 2, 1, failed=False)]
REOPENED = [Seen(Call.OPEN, 1, 2, failed=False), Seen(Call.OPEN, 2, 2, failed=False)]
COMMIT = [(Call.WRITE, 1), (Call.SYNC, 1), (Call.WRITE, 2)]


def commit(generation: int, failing: int | None = None) -> list[Seen]:
    """The calls of a commit, up to the one that fails."""
    calls = [Seen(call, fd, generation, failed=number == failing) for number, (call, fd) in enumerate(COMMIT)]
    return calls if failing is None else calls[: failing + 1]


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        (OPENED + commit(1) + commit(1), False),
        (OPENED + commit(1, 1) + REOPENED + commit(2), False),
        (OPENED + commit(1, 2) + [Seen(Call.WRITE, 1, 1, failed=False)] + REOPENED + commit(2), False),
        (OPENED + commit(1, 1) + [Seen(Call.SYNC, 1, 1, failed=False)], True),
        (OPENED + commit(1, 1) + commit(1), True),
        (OPENED + commit(1, 2) + [Seen(Call.SYNC, 1, 1, failed=False)], True),
        (OPENED + commit(1, 2) + commit(1), True),
    ],
)
def test_a_sync_that_is_tried_again_is_found(tmp_path: Path, calls: list[Seen], found: bool) -> None:
    faults = Faults(tmp_path / "control")
    entries = b"".join(ENTRY.pack(*call) for call in calls)
    faults._map[NUMBERS * 8 : NUMBERS * 8 + len(entries)] = entries
    faults[Place.LOGGED] = len(calls)
    assert faults.log() == calls
    assert bool(faults.synced_again()) == found
