"""From `headrace serve` to the end of the process: the line, the folder, signals, refusals."""

from __future__ import annotations

import json
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.running import run_command

CREATE = "CREATE NAMESPACE IF NOT EXISTS app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) WITH (TYPE = 'SHARED')"


def test_the_first_start_makes_a_private_folder_and_asks_for_set_up(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "new"
    running = serve(data=data)
    assert running.line == f"Headrace listens on {running.url} · data in {data} · needs set-up: POST /v1/api/auth/setup"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    secret = data / "jwt_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text().strip()) == 64
    assert httpx.get(f"{running.url}/v1/api/auth/status").json()["needs_setup"] is True
    running.set_up()
    assert running.stop() == 0

    again = serve(data=data)
    assert again.line == f"Headrace listens on {again.url} · data in {data}"
    assert httpx.get(f"{again.url}/v1/api/auth/status").json()["needs_setup"] is False


def test_tokens_and_rows_survive_a_stop_and_a_kill(serve: Serve) -> None:
    running = serve().set_up()
    token = running.token
    running.sql(CREATE)
    running.sql("INSERT INTO app.t VALUES (1, 'one')")
    assert running.stop() == 0
    running.start()
    with running.client_of(token) as client:
        assert client.get("/v1/api/auth/me").json()["user"]["id"] == "admin"
    running.token = token
    running.sql("INSERT INTO app.t VALUES (2, 'two')")
    running.kill()
    running.start()
    assert running.rows("SELECT id, v FROM app.t ORDER BY id") == [[1, "one"], [2, "two"]]


def test_a_second_start_on_the_folder_is_refused_with_a_sentence(serve: Serve, tmp_path: Path) -> None:
    running = serve()
    second = run_command("serve", "--data", running.data, "--port", "0")
    assert second.returncode == 1
    assert second.stdout == ""
    assert running.process is not None
    assert str(running.process.pid) in second.stderr
    assert str(running.data) in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert httpx.get(f"{running.url}/health").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish(serve: Serve, number: int) -> None:
    running = serve().set_up()
    running.sql(CREATE)
    begun, stopping = threading.Event(), threading.Event()
    answers: list[httpx.Response] = []

    def body() -> Iterator[bytes]:
        yield b'{"id": 1, "v": "before"}\n'
        begun.set()
        assert stopping.wait(10)
        yield b'{"id": 2, "v": "after"}\n'

    def ingest() -> None:
        with running.client_of(running.token) as client:
            answers.append(
                client.post("/v1/api/ingest/app/t", content=body(), headers={"Content-Type": "application/x-ndjson"})
            )

    thread = threading.Thread(target=ingest)
    thread.start()
    assert begun.wait(10)
    assert running.process is not None
    running.process.send_signal(number)
    while accepts(running.url):
        pass
    stopping.set()
    thread.join(20)
    (answer,) = answers
    assert (answer.status_code, answer.json()["inserted"]) == (200, 2)
    assert running.wait() == 0, running.log()
    running.start()
    assert running.rows("SELECT count(*) FROM app.t") == [[2]]


def test_a_request_that_takes_too_long_does_not_hold_the_stop(serve: Serve) -> None:
    running = serve(HEADRACE_SERVER_SHUTDOWN_TIMEOUT_SECONDS="1").set_up()
    host, port = running.url.removeprefix("http://").split(":")
    head = (
        "POST /v1/api/ingest/app/t HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
        f"Authorization: Bearer {running.token}\r\nContent-Length: 100\r\n\r\nabc"
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = httpx.get(f"{running.url}/health")
        assert answer.status_code == 200
        assert running.stop() == 0
        rest = connection.recv(65536)
    assert rest == b"" or b"SERVER_SHUTTING_DOWN" in rest


@pytest.mark.slow
def test_a_query_that_nothing_interrupts_does_not_hold_the_stop(serve: Serve) -> None:
    running = serve(HEADRACE_EXECUTION_HANDLER_TIMEOUT_SECONDS="1").set_up()
    deaf = "list_sum(list_transform(range(100000), lambda y: y * x))"
    answer = running.client.post(
        "/v1/api/sql", json={"sql": f"SELECT len(list_transform(range(100000), lambda x: {deaf}))"}, timeout=30
    )
    assert answer.status_code == 408
    assert running.stop() == 0


def accepts(url: str) -> bool:
    """Whether the server still takes connections."""
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_taken_port_is_a_sentence(serve: Serve, tmp_path: Path) -> None:
    port = serve().url.rpartition(":")[2]
    refused = run_command("serve", "--data", tmp_path / "other", "--port", port)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"headrace: Port {port} on 127.0.0.1 is taken by another process")


def test_a_folder_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused = run_command("serve", "--data", tmp_path / "file", "--port", "0")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"headrace: The data folder {tmp_path / 'file'} is a file.\n"


@pytest.mark.parametrize(
    ("text", "variables", "sentence"),
    [
        ("[server]\nprot = 1\n", {}, "section [server] has no key 'prot'; did you mean 'port'?"),
        ("[limits]\nmax_body_bytes = 'big'\n", {}, "section [limits], key 'max_body_bytes': Expected int, got str"),
        (
            "",
            {"HEADRACE_WIRE_BIGINT": "long"},
            "environment variable HEADRACE_WIRE_BIGINT: section [wire], key 'bigint'",
        ),
        ("", {"HEADRACE_AUTH_ROOT_PASSWORD": "short"}, "section [auth], key 'root_password'"),
        ("", {"HEADRACE_AUTH_JWT_SECRET": "a" * 40}, "auth.jwt_secret repeats only 1 different characters"),
    ],
)
def test_a_wrong_configuration_is_a_sentence(
    tmp_path: Path, text: str, variables: dict[str, str], sentence: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    refused = run_command("serve", "--config", file, "--data", tmp_path / "data", "--port", "0", **variables)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert sentence in refused.stderr
    assert refused.stderr.startswith("headrace: ")
    assert len(refused.stderr.splitlines()) == 1


def test_the_log_is_json_where_that_is_asked_for(serve: Serve) -> None:
    running = serve("--log-format", "json", HEADRACE_LOGGING_LEVEL="debug")
    httpx.get(f"{running.url}/nowhere", headers={"X-Request-ID": "trace-7"})
    assert running.stop() == 0
    lines = [json.loads(line) for line in running.log().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "trace-7"]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("GET", "/nowhere", 404, "127.0.0.1")


def test_a_root_password_from_the_environment_makes_set_up_needless(serve: Serve) -> None:
    running = serve(HEADRACE_AUTH_ROOT_PASSWORD="RootPass123!")
    assert not running.needs_setup
    assert running.login("root", "RootPass123!")


def test_version_and_help() -> None:
    version = run_command("--version")
    assert version.returncode == 0
    assert version.stdout.startswith("headrace ")
    assert "serve" in run_command().stdout
    assert run_command("serve", "--port", "many").returncode == 2


def test_check_finds_a_clean_folder_clean(serve: Serve) -> None:
    running = serve().set_up()
    running.sql(CREATE)
    running.sql("INSERT INTO app.t VALUES (1, 'one')")
    for _ in range(2):  # while it is served, and afterwards
        clean = run_command("check", "--data", running.data)
        assert (clean.returncode, clean.stderr) == (0, ""), clean.stdout
        assert clean.stdout == f"{running.data} is consistent.\n"
        running.stop()
    missing = run_command("check", "--data", running.data / "nowhere")
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1


def test_starting_is_quick_and_idle_is_small(serve: Serve) -> None:
    running = serve().set_up()
    assert running.memory_mb() < 155
