"""The trading side of Alpaca: its clock, what it refuses, and bodies as its own SDK has them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alpaca.trading.client import TradingClient

from ops_pipeline.clients.alpaca_account import clock_skew_seconds
from ops_pipeline.clients.alpaca_http import (
    AlpacaBusy,
    AlpacaSilent,
    PatientAdapter,
    RateBudget,
    patient,
)
from ops_pipeline.domain.errors import BadConfiguration, BadInput, OperatorError
from ops_pipeline.settings import AlpacaAccess
from ops_pipeline_tests.clients.alpaca_stub import Answer, Time, serving

OUTCOMES = {403: BadConfiguration, 404: BadInput, 422: BadInput, 429: AlpacaBusy}
ORDER = "61e69015-8549-4bfd-b9c3-01e75843f47d"


def skew(answer: Answer) -> float:
    time = Time()
    with serving(answer) as stub:
        access = AlpacaAccess("PKSECRETKEY", "a-very-secret-one", stub.url, stub.url)
        return clock_skew_seconds(access, time.now)


def a_clock(seconds: float) -> Answer:
    at = (Time().now() + timedelta(seconds=seconds)).isoformat()
    return Answer({"timestamp": at, "is_open": True, "next_open": at, "next_close": at})


@pytest.mark.parametrize("seconds", [0.0, 2.5, -30.0])
def test_the_skew_is_how_far_the_brokers_clock_is_ahead(seconds: float) -> None:
    assert skew(a_clock(seconds)) == pytest.approx(seconds, abs=1e-6)


def test_a_refused_key_is_one_line_without_the_key() -> None:
    with pytest.raises(BadConfiguration) as raised:
        skew(Answer({"code": 40110000, "message": "no key PKSECRETKEY here"}, 401))
    assert str(raised.value) == "Alpaca refused the key (401)"


@pytest.mark.recorded
def test_each_recorded_error_of_the_trading_host_has_its_outcome(recorded: Path) -> None:
    text = (recorded / "alpaca_error_bodies" / "errors.json").read_text()
    errors = [error for error in json.loads(text) if error["api"] == "trading"]
    assert len(errors) == 10
    for error in errors:
        # At once, and not after half a minute of patience.
        answer = Answer(error["body"], error["http"], {"Retry-After": "3600"})
        with pytest.raises(OperatorError) as raised:
            skew(answer)
        assert type(raised.value) is OUTCOMES[error["http"]], error
        if error["http"] != 429:
            assert error["body"]["message"] in str(raised.value)


def bodies(recorded: Path, name: str) -> str:
    return (recorded / "alpaca_py_responses" / f"test_{name}.json").read_text()


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "call", "arguments"),
    [
        ("account_routes__test_get_account", "get_account", ()),
        ("order_routes__test_get_orders", "get_orders", ()),
        ("order_routes__test_get_order_by_id", "get_order_by_id", (ORDER,)),
        ("order_routes__test_get_order_by_client_id", "get_order_by_client_id", (ORDER,)),
        ("position_routes__test_get_all_positions", "get_all_positions", ()),
    ],
)
def test_recorded_bodies_pass_the_patient_adapter_whole(
    recorded: Path, name: str, call: str, arguments: tuple[Any, ...]
) -> None:
    time, text = Time(), bodies(recorded, name)
    with serving(Answer("{", 200), Answer(text)) as stub:
        client = TradingClient("key", "secret", url_override=stub.url, raw_data=True)
        adapter = PatientAdapter(time.patience(), RateBudget(sleep=time.sleep), time.now)
        with patient(client, adapter):
            assert getattr(client, call)(*arguments) == json.loads(text)
        # The first answer was cut short, and so asked for again.
        assert len(stub.asked) == 2


def test_a_broken_answer_to_an_order_is_never_asked_for_again() -> None:
    time = Time()
    with serving(Answer("{", 503)) as stub:
        client = TradingClient("key", "secret", url_override=stub.url)
        adapter = PatientAdapter(time.patience(), RateBudget(sleep=time.sleep), time.now)
        with patient(client, adapter), pytest.raises(AlpacaSilent):
            client.post("/orders", {"symbol": "AAPL"})
        assert [asked.method for asked in stub.asked] == ["POST"]
