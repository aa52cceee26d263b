"""schemathesis sends what `/openapi.json` allows, and what it does not, to a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import RunningServer

CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance"
SIGN_OUT = "/auth/(logout|refresh)"
"""These end the session that the run uses."""


@pytest.mark.slow
@pytest.mark.parametrize("signed_in", [True, False])
def test_every_answer_is_one_that_the_description_has(
    fresh_server: RunningServer, tmp_path: Path, signed_in: bool
) -> None:
    fresh_server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) WITH (TYPE = 'SHARED')")
    program = Path(sys.executable).with_name("schemathesis")
    examples = os.environ.get("HEADRACE_FUZZ_EXAMPLES", "30")
    command = [
        program, "run", f"{fresh_server.url}/openapi.json", "--max-examples", examples, "--seed", "1", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--checks", CHECKS,
    ]  # fmt: skip
    if signed_in:
        command += ["--header", f"Authorization: Bearer {fresh_server.token}", "--exclude-path-regex", SIGN_OUT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "Traceback" not in fresh_server.log()
    assert fresh_server.rows("SELECT count(*) FROM app.t") == [[0]]
