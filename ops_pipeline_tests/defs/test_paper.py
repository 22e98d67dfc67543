"""The dispatcher's asset with a broker over HTTP, and what happens where it must not trade."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from ops_pipeline.clients.alpaca_orders import AlpacaOrders
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.dispatcher.turn import take_turn
from ops_pipeline.domain.errors import BadConfiguration, OperatorError, Unsafe
from ops_pipeline.sandbox.live import UnfoldingMarket
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import AlpacaAccess, BrokerName, Mode, Settings
from ops_pipeline.storage import bars
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.builders import a_bar
from ops_pipeline_tests.defs.world import World, open_world
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.storage.rows import put_recommendation

# In the middle of the sandbox's session, whatever the time is.
NOW = datetime(2026, 3, 11, 15, 30, 30, tzinfo=UTC)
MINUTE = datetime(2026, 3, 11, 15, 29, tzinfo=UTC)


@pytest.fixture
def broker() -> Iterator[tuple[SandboxWorld, str]]:
    world = SandboxWorld(
        UnfoldingMarket(clock), clock, requests_per_minute=100_000, fill_seconds=0.03
    )
    with served(world) as url:
        yield world, url


@pytest.fixture
def paper(
    template: Settings, broker: tuple[SandboxWorld, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A world in sandbox mode whose orders go to a served broker; its present stands still."""
    monkeypatch.setattr("ops_pipeline.storage.knowledge.clock", lambda: NOW)
    monkeypatch.setattr("ops_pipeline.storage.knowledge.server_clock", lambda _: NOW)
    with open_world(template, Mode.SANDBOX) as made:
        _reconfigure(
            made,
            alpaca=AlpacaAccess("sandbox-key", "sandbox-secret", broker[1], broker[1]),
            broker=BrokerName.ALPACA,
        )
        _recommend(made)
        yield made


def _reconfigure(world: World, **changes: Any) -> None:
    world.pipeline.engine.dispose()
    world.settings = replace(world.settings, **changes)
    world.pipeline = Pipeline(world.settings)


def _recommend(world: World) -> None:
    """One recommendation that trades now, and one that is too old."""
    shared = {"session_date": NOW.date(), "features_snapshot": {"v": 1, "ts": MINUTE.isoformat()}}
    with world.pipeline.engine.begin() as connection:
        bars.insert_bars(
            connection,
            [a_bar(minute=MINUTE)],
            {MINUTE: NOW.date()},
            lambda bar: bar.minute + timedelta(minutes=1),
            feed="test",
            origin="live",
        )
        ts = NOW - timedelta(seconds=20)
        put_recommendation(connection, ts=ts, minute=MINUTE, available_at=ts, **shared)
        old = NOW - timedelta(minutes=20)
        put_recommendation(connection, ts=old, minute=old, available_at=old, **shared)


def run(world: World) -> dg.ExecuteInProcessResult:
    """The dispatcher's job, as the sensor starts it."""
    pipeline = world.definitions.resources["pipeline"]  # type: ignore[index]
    pipeline.settings = world.settings
    pipeline.__dict__.pop("config", None)
    return world.job("dispatch_job", raise_on_error=False, op_selection=["executions"])


def statuses(world: World) -> list[tuple[str, str | None]]:
    statement = "select status, failure_reason from dispatch_recommendations order by ts desc"
    return [tuple(row.values()) for row in world.rows(statement)]


def failure_of(outcome: dg.ExecuteInProcessResult) -> str:
    (event,) = outcome.filter_events(lambda found: found.is_step_failure)
    return str(event.step_failure_data.error.to_string())


EXPIRED = ("SKIPPED", "expired")


def test_a_recommendation_becomes_one_order_that_is_followed_to_its_fill(
    paper: World, broker: tuple[SandboxWorld, str]
) -> None:
    assert run(paper).success
    assert statuses(paper) == [("EXECUTED", None), EXPIRED]
    (order,) = broker[0].broker.orders.values()
    give_up = time.monotonic() + 20
    while paper.value("select state from order_intents") != "FILLED":
        assert time.monotonic() < give_up
        paper.execute("update order_intents set asked_at = asked_at - interval '1 minute'")
        take_turn(paper.pipeline.desk("test"))
    (row,) = paper.rows("select client_order_id, qty, filled_qty, tries from order_intents")
    assert row["client_order_id"] == order.client_order_id
    assert row["qty"] == row["filled_qty"] == int(order.ticket.qty)
    assert row["tries"] == 1
    assert len(broker[0].broker.orders) == 1
    assert paper.value("select execution_mode from dispatch_executions") == "ALPACA_PAPER"


BAD_SETTINGS = {
    "NaN": '{"confidence_min": NaN}',
    "negative": '{"max_daily_loss_usd": -1}',
    "a string": '{"confidence_min": "0.6"}',
    "an unknown key": '{"min_confidence": 0.6}',
    "YAML": "confidence_min: 0.6",
    "the same key twice": '{"tier": "tiny", "tier": "large"}',
}


@pytest.mark.parametrize("document", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_hostile_settings_dispatch_nothing_and_say_why_in_one_line(
    paper: World, broker: tuple[SandboxWorld, str], document: str
) -> None:
    _reconfigure(paper, dispatcher_overrides=document)
    with pytest.raises(BadConfiguration) as said:
        paper.pipeline.desk("test")
    assert "\n" not in str(said.value)
    outcome = run(paper)
    assert not outcome.success
    assert str(said.value) in failure_of(outcome)
    # What waits goes on waiting, and what is too old ends all the same.
    assert statuses(paper) == [("PENDING", None), EXPIRED]
    assert not broker[0].broker.orders


def test_without_consent_no_order_goes_to_a_paper_account(
    paper: World, broker: tuple[SandboxWorld, str]
) -> None:
    access = AlpacaAccess("PKTEST", "secret", broker[1], broker[1])
    broker[0]._key, broker[0]._secret = b"PKTEST", b"secret"
    _reconfigure(paper, mode=Mode.ALPACA_PAPER, alpaca=access, paper_consent="PA-another")
    with pytest.raises(Unsafe, match="no consent to trade account"):
        paper.pipeline.broker()
    number = AlpacaOrders(access, clock).account().number
    _reconfigure(paper, paper_consent=number)
    assert paper.pipeline.broker().execution_mode == "ALPACA_PAPER"
    assert paper.pipeline.broker().needs_stream


def test_a_broker_that_does_not_answer_stops_orders_and_not_the_sweeping(
    paper: World, broker: tuple[SandboxWorld, str]
) -> None:
    nobody = "http://127.0.0.1:9"
    _reconfigure(paper, alpaca=AlpacaAccess("sandbox-key", "sandbox-secret", nobody, nobody))
    with pytest.raises(OperatorError):
        paper.pipeline.desk("test")
    assert not run(paper).success
    assert statuses(paper) == [("PENDING", None), EXPIRED]
    assert not broker[0].broker.orders


def test_a_mode_without_a_broker_never_asks_one(paper: World) -> None:
    _reconfigure(paper, broker=BrokerName.SIMULATED, alpaca=None)
    assert run(paper).success
    assert statuses(paper) == [("SIMULATED", None), EXPIRED]
    with paper.pipeline.engine.connect() as connection:
        assert connection.execute(text("select count(*) from order_intents")).scalar() == 0
