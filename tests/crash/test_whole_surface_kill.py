"""`kill -9` of a server that flushes, compacts, backs up and publishes under load: at random moments and at steps.

`HEADRACE_CAMPAIGN_ROUNDS` sets the number of rounds (2 by default), `HEADRACE_CAMPAIGN_SEED` the seed, which every
failure names. A round starts the server that the last one killed, proves what it holds, lets everybody go on, and
kills it: by itself at the n-th time that a step is reached (`stepwise_server.STEPS`), or from outside.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.crash.surface_campaign import Campaign

ROUNDS = int(os.environ.get("HEADRACE_CAMPAIGN_ROUNDS", "2"))
SEED = int(os.environ.get("HEADRACE_CAMPAIGN_SEED", "20261128"))
log = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.timeout(120 + 40 * ROUNDS)
def test_kill_9_at_any_step_of_what_moves_data(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, SEED)
    try:
        campaign.begin()
        for number in range(ROUNDS):
            try:
                campaign.play(number)
            except Exception as error:
                error.add_note(f"round {number} of seed {SEED}\n{campaign.server.log()[-3000:]}")
                raise
        campaign.end()
    finally:
        campaign.server.kill()
    log.info("%d rounds of seed %d: %s", ROUNDS, SEED, campaign.summary())
    assert campaign.restored
    assert "Traceback" not in campaign.server.log(), campaign.server.log()
