"""At least once and in order, whatever happens: four producers, eight consumers in two groups, `kill -9`.

The whole run is written down and checked (`tests.chaos.topic_checker`). Without accidents nothing comes twice.

    pytest tests/chaos/test_topic_chaos.py --chaos-seconds 300 --chaos-rounds 5 --chaos-seed 1 -o log_cli=true \
        -o log_cli_level=INFO
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from storage.check import check
from tests.chaos.conftest import ChaosOptions
from tests.chaos.topic_campaign import SCHEMA, TopicCampaign
from tests.e2e.running import RunningServer, stable_port

log = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("calm", [False, True], ids=["rough", "calm"])
def test_every_group_gets_every_message_in_order(tmp_path: Path, chaos: ChaosOptions, calm: bool) -> None:
    for number in range(chaos.rounds):
        server = RunningServer(tmp_path / f"data{number}", port=stable_port())
        name = f"{chaos.seed}/{number}"
        try:
            server.start().set_up().sql(SCHEMA)
            campaign = TopicCampaign(server, name, calm=calm)
            try:
                campaign.run(chaos.seconds)
            except BaseException as error:
                error.add_note(f"seed {name}: {campaign.report()}\n{server.log()[-1500:]}")
                raise
            happened = campaign.report()
            log.info("seed %s: %s", name, happened)
            assert happened["messages"] > 50, happened
            assert calm or (campaign.kills > 0 and happened["redeliveries"] > 0), happened
            assert server.stop() == 0, server.log()[-2000:]
            assert "Traceback" not in server.log(), server.log()[-4000:]
            assert check(server.data) == []
        finally:
            server.kill()
