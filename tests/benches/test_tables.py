"""Result tables: ratios, aims met and missed, and lines that are left out."""

from __future__ import annotations

from benches.table import Aim, Report, Row

ROWS = (
    Row("yes", "Headrace", 9_000.0, ("1.5",), "python -m benches x --only headrace"),
    Row("-", "echo (ceiling)", 16_000.0, ("0.9",), ""),
    Row("yes", "PostgreSQL + asyncpg", 3_000.0, ("5.0",), "python -m benches x --only postgres"),
)


def report(*aims: Aim, rows: tuple[Row, ...] = ROWS) -> str:
    return str(Report("Title", "reads/s", ("p50 ms",), rows, aims))


def test_first_column_says_whether_it_syncs() -> None:
    lines = report().splitlines()
    assert lines[2].split() == ["syncs", "system", "reads/s", "Headrace", "/", "it", "p50", "ms"]
    assert lines[4].split() == ["yes", "Headrace", "9,000", "1.00", "1.5"]
    assert lines[6].split()[-3:] == ["3,000", "3.00", "5.0"]


def test_an_aim_is_met_or_missed_by_the_ratio() -> None:
    text = report(Aim("echo (ceiling)", 0.5), Aim("PostgreSQL + asyncpg", 4.0))
    assert "aim: at least 0.5 x echo (ceiling); measured 0.562: met" in text
    assert "aim: at least 4 x PostgreSQL + asyncpg; measured 3: MISSED" in text


def test_less_can_be_better() -> None:
    assert "measured 0.562: met" in report(Aim("echo (ceiling)", 0.6, at_most=True))
    assert "measured 0.562: MISSED" in report(Aim("echo (ceiling)", 0.5, at_most=True))


def test_an_aim_may_be_a_number_and_name_its_subject() -> None:
    assert "aim: PostgreSQL + asyncpg: at least 2,500; measured 3,000: met" in report(
        Aim(None, 2_500, subject="PostgreSQL + asyncpg")
    )


def test_an_aim_without_its_peer_is_not_judged() -> None:
    assert "aim" not in report(Aim("PocketBase", 1.3))


def test_ratios_need_headrace() -> None:
    assert report(rows=ROWS[1:]).splitlines()[4].split()[-2:] == ["-", "0.9"]


def test_each_command_stands_once() -> None:
    assert report(rows=(ROWS[0], ROWS[0])).count("--only headrace") == 1
