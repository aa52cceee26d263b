"""docs/live.md: its examples are messages of the protocol, and it names every code, option and parameter."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from server.live import events
from server.live.failures import Code
from server.live.messages import (
    Authenticate,
    AuthFailure,
    AuthSuccess,
    ClientMessage,
    Failure,
    InitialDataBatch,
    NextBatch,
    Ping,
    Pong,
    SnapshotOptions,
    Subscribe,
    SubscriptionAck,
    SubscriptionRequest,
    Unsubscribe,
    Unsubscribed,
)
from sql.live import errors

PAGE = (Path(__file__).parents[3] / "docs" / "live.md").read_text(encoding="utf-8")


class Change(msgspec.Struct, tag_field="type", tag="change", forbid_unknown_fields=True):
    """A change as the reference and our decisions have it; the server builds it from parts."""

    subscription_id: str
    change_type: str
    seq: int
    rows: list[dict[str, object]] = []
    old_values: list[dict[str, object]] = []


FROM_SERVER = AuthSuccess | AuthFailure | SubscriptionAck | InitialDataBatch | Failure | Unsubscribed | Pong | Change
CLIENT = (Authenticate, Subscribe, NextBatch, Unsubscribe, Ping)
EXAMPLES = re.findall(r"^```json\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=[text[:50] for text in EXAMPLES])
def test_examples_are_messages(text: str) -> None:
    kind = msgspec.json.decode(text)["type"]
    is_clients = kind in {struct.__struct_config__.tag for struct in CLIENT}
    message = msgspec.json.decode(text, type=ClientMessage if is_clients else FROM_SERVER)
    again = msgspec.json.decode(msgspec.json.encode(message))
    for name in msgspec.json.decode(text):
        assert name in again, name


def test_every_message_has_an_example_or_a_name() -> None:
    shown = {msgspec.json.decode(text)["type"] for text in EXAMPLES}
    kinds = {struct.__struct_config__.tag for struct in (*CLIENT, AuthSuccess, SubscriptionAck, InitialDataBatch)}
    kinds |= {struct.__struct_config__.tag for struct in (Failure, Unsubscribed, Pong)}
    assert kinds <= shown
    assert "`auth_error`" in PAGE


def test_every_code_is_documented() -> None:
    codes = {code.value for code in Code}
    codes |= {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    internal = {"SUBSCRIPTION_ENDED", "STALE_BINDING", "SQL_EXECUTION_ERROR"}
    assert {code for code in codes - internal if f"`{code}`" not in PAGE} == set()


def test_every_option_and_parameter_is_documented() -> None:
    names = {
        field.encode_name
        for struct in (SnapshotOptions, SubscriptionRequest)
        for field in msgspec.structs.fields(struct)
    }
    for name in names | events._NAMES:
        assert re.search(rf"`{name}[`:]", PAGE), name
