"""A crash between rows and messages cannot exist: every call on the disk fails once, or is the last before `kill -9`.

`topic_run.py` does the work, in a process with `shim.c` preloaded. After each failure, and after each opening anew, the
rows of the tables, the messages of their topics and the offsets of a group agree exactly.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.faults import Call, Fault, Faults, compile_shim, preloaded
from tests.crash.test_faults import fast_folder
from tests.e2e.running import ROOT

log = logging.getLogger(__name__)

__all__ = ["fast_folder"]

FAULTS = [
    Fault(Call.SYNC),
    Fault(Call.SYNC, after=True),
    Fault(Call.SYNC, sticky=True),
    Fault(Call.WRITE),
    Fault(Call.WRITE, after=True),
    Fault(Call.WRITE, short=True),
    Fault(Call.WRITE, errno.ENOSPC),
    Fault(Call.SYNC, kill=True),
    Fault(Call.SYNC, after=True, kill=True),
    Fault(Call.WRITE, kill=True),
    Fault(Call.WRITE, after=True, kill=True),
    Fault(Call.WRITE, short=True, kill=True),
]
USUAL = {Fault(Call.SYNC), Fault(Call.WRITE, after=True), Fault(Call.SYNC, kill=True), Fault(Call.WRITE, kill=True)}
"""Those that run without `--all-faults`: a minute each on a busy machine."""
LEAST = {Call.SYNC: 10, Call.WRITE: 30}
"""How many calls of each kind the script makes at least; far fewer mean that the shim does not see them."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_rows_and_messages_agree(
    shim: Path, fast_folder: Path, tmp_path: Path, fault: Fault, pytestconfig: pytest.Config
) -> None:
    if fault not in USUAL and not pytestconfig.getoption("--all-faults"):
        pytest.skip("runs with --all-faults")
    control = tmp_path / "control"
    Faults(control)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "tests.crash.topic_run", str(control), str(fast_folder)]
    done = subprocess.run(
        [*command, json.dumps(fault._asdict())],
        env=os.environ | preloaded(shim, control) | {"PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    report = json.loads(done.stdout)
    assert not report["violations"], "\n".join(report["violations"])
    assert report["injected"] >= LEAST[fault.call], report
    log.info("%s: %d calls, one at a time; reported as %s", fault, report["injected"], report["errors"])
