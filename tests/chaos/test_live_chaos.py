"""No gap and no duplicate, whatever happens: fifty live queries behind bad connections, eight writers, `kill -9`.

Every message is checked when it comes (`tests.chaos.rowset`); at the end of a round, when the writers have stopped and
everybody was told everything, each subscriber's rows must be exactly what the query answers over HTTP.

    pytest tests/chaos --chaos-seconds 300 --chaos-rounds 10 --chaos-seed 1 -o log_cli=true -o log_cli_level=INFO
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.campaign import FORGETFUL, MINDFUL, SETTINGS, Campaign
from tests.chaos.conftest import ChaosOptions
from tests.e2e.running import RunningServer, stable_port


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("retention", "bigint", "buffer"),
    [(MINDFUL, "auto", "1048576"), (FORGETFUL, "string", "8192")],
    ids=["mindful", "forgetful"],
)
def test_every_subscriber_holds_the_answer(
    tmp_path: Path, chaos: ChaosOptions, retention: dict[str, str], bigint: str, buffer: str
) -> None:
    changes = SETTINGS | retention
    changes |= {"HEADRACE_WIRE_BIGINT": bigint, "HEADRACE_WEBSOCKET_SEND_BUFFER_BYTES": buffer}
    server = RunningServer(tmp_path / "data", changes=changes, port=stable_port())
    try:
        campaign = Campaign(server.start(), chaos.seed)
        campaign.set_up()
        for number in range(chaos.rounds):
            forgetful = retention is FORGETFUL
            asyncio.run(campaign.round(f"{number}/{bigint}", chaos.seconds, forgetful=forgetful))
            happened = campaign.report()["subscribers"]
            assert happened["resumes"] > 0, happened
            assert happened["too old"] > 0 or not forgetful, happened
        assert campaign.kills >= chaos.rounds
        assert server.stop() == 0, server.log()[-2000:]
        assert "Traceback" not in server.log()
    finally:
        server.kill()
