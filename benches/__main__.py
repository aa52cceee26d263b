"""`python -m benches` lists the benches; `python -m benches NAME...` or `all` runs them."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from benches import (
    bulk_load,
    busy_reads,
    file_transfer,
    group_by,
    growth,
    indexes,
    insert_many,
    insert_one,
    live_fan_out,
    live_keys,
    live_latency,
    live_many,
    live_sustained,
    point_read,
    start_up,
    stream_out,
    syncs,
    tiers,
    topic_batches,
    topic_publish,
    topic_retention,
    topic_sources,
    topic_waiting,
    topic_wake_up,
    update_by_key,
    user_tables,
    vector_search,
)
from benches.runner import SYSTEMS, Options
from benches.table import Report


class Bench(Protocol):
    """A module of work."""

    NAME: str
    SUMMARY: str

    def run(self, options: Options) -> Iterator[Report]:
        """Run it and yield its tables."""


MODULES: Sequence[Bench] = (
    syncs,
    point_read,
    insert_one,
    insert_many,
    bulk_load,
    stream_out,
    update_by_key,
    group_by,
    busy_reads,
    growth,
    start_up,
    live_latency,
    live_keys,
    live_fan_out,
    live_sustained,
    live_many,
    topic_publish,
    topic_batches,
    topic_sources,
    topic_wake_up,
    topic_waiting,
    topic_retention,
    file_transfer,
    indexes,
    tiers,
    vector_search,
    user_tables,
)
BENCHES = {bench.NAME: bench for bench in MODULES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches that the command line names, or list all."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run, or `all`")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that are counted (default 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run of wrk (default 5)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows in the table before reads and updates")
    parser.add_argument("--users", type=int, default=10_000, help="users of `user-tables` (default 10000)")
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="measure this system only; may be repeated")
    parser.add_argument("--folder", type=Path, help="parent of the temporary data folder: choose the disk to measure")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="write flame graphs of Headrace (needs py-spy)")
    chosen = parser.parse_args(arguments)
    if not chosen.names:
        for bench in MODULES:
            print(f"{bench.NAME:<15} {bench.SUMMARY}")
        return 0
    names = list(BENCHES) if chosen.names == ["all"] else chosen.names
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench named {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (apt-get install wrk)")
    only = frozenset(chosen.only or SYSTEMS)
    options = Options(chosen.rounds, chosen.seconds, only, chosen.rows, chosen.folder, chosen.profile, chosen.users)
    for name in names:
        for report in BENCHES[name].run(options):
            print(report, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
