"""Reading strace: what counts as a sync, and what only looks like one."""

from __future__ import annotations

from benches.syncs import count_syncs


def counted(*lines: str, synchronous: dict[int, str] | None = None) -> dict[str, int]:
    return dict(count_syncs("\n".join(lines), synchronous or {}))


def test_each_call_counts_once() -> None:
    assert counted(
        "11 fsync(5</data/a>) = 0",
        "12 fdatasync(6</data/b> <unfinished ...>",
        "11 write(1</dev/null>, ..., 20) = 20",
        "12 <... fdatasync resumed>) = 0",
        "12 fdatasync(6</data/b>) = 0",
    ) == {"fsync": 1, "fdatasync": 2}


def test_writes_count_through_synchronous_descriptors_only() -> None:
    lines = (
        "11 pwrite64(7</data/data.mdb>, ..., 4096, 0) = 4096",
        "11 pwrite64(8</data/data.mdb>, ..., 40, 0) = 40",
    )
    assert counted(*lines) == {}
    assert counted(*lines, synchronous={8: "/data/data.mdb"}) == {"synchronous write": 1}


def test_a_descriptor_that_is_opened_meanwhile_is_known() -> None:
    assert counted(
        '11 openat(AT_FDCWD</>, "/data/state", O_WRONLY|O_CREAT|O_SYNC|O_CLOEXEC <unfinished ...>',
        '12 openat(AT_FDCWD</>, "/data/other", O_WRONLY|O_CLOEXEC) = 10</data/other>',
        "11 <... openat resumed>, 0640) = 9</data/state>",
        "12 write(10</data/other>, ..., 5) = 5",
        "11 write(9</data/state>, ..., 5) = 5",
    ) == {"synchronous write": 1}


def test_a_number_that_is_used_again_is_another_file() -> None:
    before = {9: "/data/state"}
    assert (
        counted('11 openat(AT_FDCWD</>, "/x", O_RDONLY) = 9</x>', "11 write(9</x>, ..., 5) = 5", synchronous=before)
        == {}
    )
    assert counted("11 write(9<socket:[77]>, ..., 5) = 5", synchronous=before) == {}
