"""What a what-if says is what the dispatcher does, when it is really run under those settings."""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import accumulate, product
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.dispatcher import what_if as in_memory
from ops_pipeline.dispatcher.run import Desk, run_until_idle
from ops_pipeline.dispatcher.what_if import Past, Played, Present
from ops_pipeline.domain.dispatch import turn
from ops_pipeline.domain.errors import BadConfiguration, BadInput
from ops_pipeline.domain.session import MINUTE, Calendar, Timing
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Recommendation
from ops_pipeline.operations import what_if as asked
from ops_pipeline.operations.what_if import WhatIf, what_if
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import bars, dispatch, features, knowledge
from ops_pipeline.storage import what_if as storage
from ops_pipeline.storage.dispatch import Owned
from ops_pipeline.storage.engine import open_engine, opened
from ops_pipeline.storage.execution import fills_until, live_fills
from ops_pipeline.storage.what_if import Newest, Waiting
from ops_pipeline_tests.builders import DAY, NOON, a_bar
from ops_pipeline_tests.dispatcher.world import TS, World
from ops_pipeline_tests.operations.what_if_market import (
    BASE,
    MINUTES,
    NEXT_DAY,
    TICKERS,
    Ledger,
    fill,
    ledger,
    played,
)
from ops_pipeline_tests.storage.clones import clone
from ops_pipeline_tests.storage.rows import put_run

PRESENTS = [Timing().as_of(minute) for minute in MINUTES]
CONFIG_OF_ONE = DispatcherConfig(max_signals_per_run=1)
ALWAYS: tuple[None, None] = (None, None)
SETTINGS: dict[str, dict[str, Any]] = {
    "more confident": {"confidence_min": 0.8},
    "less confident": {"confidence_min": 0.5},
    "one trade a day": {"max_trades_per_ticker_per_day": 1},
    "many trades a day": {"max_trades_per_ticker_per_day": 50},
    "no cooldown": {"ticker_cooldown_minutes": 0},
    "long cooldown": {"ticker_cooldown_minutes": 20},
    "one position": {"max_open_positions": 1},
    "many positions": {"max_open_positions": 50, "max_notional_per_trade": 0.1},
    "small loss": {"max_daily_loss_usd": 40.0},
    "open till the close": {"closing_block_minutes": 0, "opening_block_minutes": 0},
    "dear fills": {"slippage_bps": 45.0},
    "short holds": {"max_hold_minutes": 4},
    "small account": {"equity_usd": 4_000.0, "tier": "small"},
    "shorts, one by one": {"allow_shorting": True, "max_signals_per_run": 1},
}


@pytest.fixture(scope="module")
def market(template: Settings) -> Settings:
    """The market with its recommendations; nothing is decided yet."""
    made = clone(template, "what_if_market")
    with opened(made) as engine:
        fill(engine)
    return made


@pytest.fixture(scope="module")
def base(market: Settings) -> Iterator[Engine]:
    """The market, played under the settings that were in force."""
    engine = open_engine(played(market, "what_if_base", {}))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(base: Engine) -> Iterator[Connection]:
    with base.connect() as made:
        yield made


def ask(connection: Connection, **changes: Any) -> WhatIf:
    return what_if(connection, Mode.REPLAY, ALWAYS, changes)


def require_totals(found: asked.Totals, real: Ledger) -> None:
    """The totals of a play are those of a ledger."""
    entries = sum(row[2] == "open" for row in real.executions)
    assert (found.entries, found.exits) == (entries, len(real.executions) - entries)
    assert found.executed == real.statuses["SIMULATED"] == len(real.executions)
    assert (found.skipped, found.failed) == (real.statuses["SKIPPED"], real.statuses["FAILED"])
    assert found.skips_by_gate == real.skips
    assert found.realised_usd == real.realised_usd


def test_the_market_is_rich_enough_to_prove_anything(connection: Connection) -> None:
    real = ledger(connection)
    reasons = set(
        connection.exec_driver_sql(
            "select reason ->> 'exit' from dispatch_recommendations where intent = 'close'"
        ).scalars()
    )
    assert reasons == {"stop", "target", "max_hold", "flat_before_close", "overnight"}
    assert set(real.skips) >= {
        "trading_state",
        "trading_hours",
        "bar_freshness",
        "feature_freshness",
        "max_positions",
        "ticker_daily_limit",
        "ticker_cooldown",
        "confidence",
        "action_allowed",
        "expired",
    }
    assert {row[0] for row in real.executions} == set(TICKERS)


def test_the_ledger_is_reproduced_decision_for_decision(connection: Connection) -> None:
    found = ask(connection)
    assert found.is_reproduced
    assert (found.decisions, found.added) == (len(ledger(connection).decisions), 0)
    assert (found.first, found.last, found.sessions) == (DAY, NEXT_DAY, 2)
    assert found.before == found.after
    assert (found.changes, found.flips) == ([], [])
    require_totals(found.before, ledger(connection))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_what_if_is_what_a_real_run_comes_to(
    market: Settings, connection: Connection, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, before = SETTINGS[name], ledger(connection)
    copy = played(market, f"what_if_{list(SETTINGS).index(name)}", changes)
    plays = watch(monkeypatch)
    found = ask(connection, **changes)
    with opened(copy) as engine, engine.connect() as really:
        real = ledger(really)
        back = ask(really, **{key: _base(key) for key in changes})
    assert found.is_reproduced
    require_totals(found.before, before)
    require_totals(found.after, real)
    assert executions(plays[1]) == real.executions
    assert real.executions != before.executions
    assert _flips(found) == _differences(before, real)
    # And the other way round: from the ledger that was made so to the one that is asked.
    assert back.is_reproduced
    assert (back.before, back.after) == (found.after, found.before)


def test_a_day_alone_begins_with_what_was_held_before_it(connection: Connection) -> None:
    evening, morning = (what_if(connection, Mode.REPLAY, (d, d), {}) for d in (DAY, NEXT_DAY))
    assert evening.is_reproduced
    assert morning.is_reproduced
    assert evening.before.positions_left > 0
    whole = ask(connection)
    assert evening.decisions + morning.decisions == whole.decisions
    assert evening.before.realised_usd + morning.before.realised_usd == pytest.approx(
        whole.before.realised_usd
    )


def test_days_are_those_of_the_exchange_and_either_end_may_be_open(connection: Connection) -> None:
    for days in ((NEXT_DAY, None), (NEXT_DAY, date.max), (NEXT_DAY, NEXT_DAY)):
        assert what_if(connection, Mode.REPLAY, days, {}).first == NEXT_DAY
    for days in ((None, DAY), (date.min, DAY), (DAY, DAY)):
        assert what_if(connection, Mode.REPLAY, days, {}).last == DAY


@pytest.mark.parametrize(
    "damage",
    [
        "update bars_1m set high = close * 2, close = close * 1.02 where minute < '2025-02-13'",
        "update dispatch_recommendations set features_snapshot = features_snapshot - 'ts'",
        "update dispatcher_runs set run_summary_json = '{}'",
    ],
)
def test_a_ledger_that_is_not_reproduced_says_how_much_differs(
    connection: Connection, damage: str
) -> None:
    connection.exec_driver_sql("set session_replication_role = replica")
    connection.exec_driver_sql(damage)
    found = ask(connection)
    connection.rollback()
    assert not found.is_reproduced
    assert found.equal < found.decisions


def test_what_is_known_in_memory_is_what_the_queries_say(connection: Connection) -> None:
    known = storage.known_bars(connection, TICKERS, PRESENTS[0], PRESENTS[-1])
    stood_on = storage.known_feature_bars(connection, TICKERS, PRESENTS[0], PRESENTS[-1])
    newest, newest_features = Newest(known), Newest(stood_on)
    for at in PRESENTS:
        assert newest.at(at) == bars.newest_bars(connection, TICKERS, at)
        assert newest_features.at(at) == features.newest_feature_bars(connection, TICKERS, at)


def test_what_is_older_than_a_week_is_not_known_in_memory_either(connection: Connection) -> None:
    start = PRESENTS[0]
    newest = Newest(storage.known_bars(connection, TICKERS, start, PRESENTS[-1]))
    counts = []
    for minutes in range(0, 7 * 24 * 60 + 2_000, 7):
        at = PRESENTS[-1] + minutes * MINUTE
        found = newest.at(at)
        assert found.keys() == bars.newest_bars(connection, TICKERS, at).keys()
        counts.append(len(found))
    assert (counts[0], counts[-1]) == (len(TICKERS), 0)


def test_a_bar_is_known_in_memory_for_a_week_to_the_instant(connection: Connection) -> None:
    at = MINUTES[-1] + timedelta(days=7)
    for instant in (at - timedelta(microseconds=1), at):
        newest = Newest(storage.known_bars(connection, TICKERS, PRESENTS[0], at))
        found = newest.at(instant).keys()
        assert found == bars.newest_bars(connection, TICKERS, instant).keys()
        assert bool(found) is (instant < at)


@pytest.mark.parametrize("day", [DAY, NEXT_DAY, NEXT_DAY + timedelta(days=1)])
def test_fills_that_count_in_memory_are_those_of_the_query(
    connection: Connection, day: date
) -> None:
    fills = fills_until(connection, day)
    found = in_memory._live(fills, day)
    assert found == live_fills(connection, day)
    assert (len(found) < len(fills)) is (day > DAY)


def test_turns_in_memory_are_those_of_the_queries(engine: Engine) -> None:
    world = World(engine)
    for number, (ticker, confidence, intent, early) in enumerate(
        product(("MSFT", "AAPL"), (0.8, 1.0), ("open", "close"), (False, True))
    ):
        minute = NOON - number * MINUTE
        ts = TS - early * timedelta(seconds=5)
        world.recommend(ticker=ticker, confidence=confidence, intent=intent, minute=minute, ts=ts)
    with engine.begin() as connection:
        taken = [
            dispatch.claim(connection, put_run(connection), TS, CONFIG_OF_ONE) for _ in range(16)
        ]
        epochs = {row: epoch for each in taken for row, epoch in each.items()}
        held = [owned.recommendation for owned in dispatch.owned(connection, epochs)]
    mixed = held[::-1]
    in_turn = sorted(mixed, key=turn)
    assert [row.id for row in held] == [row.id for row in in_turn]
    assert [next(iter(each)) for each in taken] == [row.id for row in in_turn]


def test_an_exit_that_waits_is_not_proposed_once_more(engine: Engine) -> None:
    world = World(engine)
    world.configure(ticker_cooldown_minutes=0, max_hold_minutes=1, max_bar_age_seconds=900)
    world.trade(*(a_bar(ticker=ticker) for ticker in TICKERS[:3]))
    for ticker in TICKERS[:3]:
        world.recommend(ticker=ticker)
        world.feature(ticker)
    world.drain(TS)
    world.configure(max_signals_per_run=1)
    for minutes in (1, 2, 3):
        world.run(TS + minutes * MINUTE)
    world.drain(TS + 4 * MINUTE)
    with engine.connect() as connection:
        found = ask(connection)
    assert (found.is_reproduced, found.decisions) == (True, 6)


def test_a_session_begins_with_what_is_held_and_forgets_what_is_not(engine: Engine) -> None:
    """Round the clock a ticker can be traded on both sides of midnight within its cooldown."""
    world = World(engine)
    calendar = Mode.SANDBOX.calendar
    midnight = calendar.day_starts_at(NEXT_DAY)
    world.configure(
        opening_block_minutes=0,
        closing_block_minutes=0,
        flat_before_close_minutes=1,
        max_hold_minutes=1,
    )
    desk = replace(world.desk, calendar=calendar)
    for minutes in (-4, -3, 1):
        minute = midnight + minutes * MINUTE
        world.trade(a_bar(minute=minute))
        world.feature(minute=minute)
        if minutes != -3:
            at = minute + MINUTE
            features_then = {"ts": minute.isoformat(), "recent_vol": 0.0005}
            world.recommend(
                minute=minute,
                ts=at,
                created_at=at,
                session_date=calendar.day(at),
                features_snapshot=features_then,
            )
        run_until_idle(desk, minute + MINUTE)
    with engine.connect() as connection:
        found = what_if(connection, Mode.SANDBOX, ALWAYS, {})
    assert (found.is_reproduced, found.decisions, found.before.entries) == (True, 3, 2)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_run_that_left_something_is_one_run_and_the_next_one_has_its_own_present(
    engine: Engine, limit: int
) -> None:
    world = World(engine)
    world.configure(max_signals_per_run=limit, ticker_cooldown_minutes=0)
    world.trade(*(a_bar(ticker=ticker) for ticker in TICKERS))
    for ticker in TICKERS:
        world.recommend(ticker=ticker)
    seconds = 0
    while not world.run(TS + timedelta(seconds=seconds)).is_idle:
        seconds += 1
    with engine.connect() as connection:
        found = ask(connection)
        after = ask(connection, max_open_positions=2)
    assert (found.equal, found.decisions) == (len(TICKERS), len(TICKERS))
    assert found.presents == seconds + 1 > 2
    assert (after.after.entries, after.after.skips_by_gate) == (2, {"max_positions": 5})


def test_live_decisions_come_a_moment_after_their_claim_and_are_reproduced(
    market: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading of the clock is 20 to 150 ms later: a bar or a feature comes in between."""
    monkeypatch.setattr(knowledge, "clock_skew_seconds", lambda *_: 0.0)
    dice = random.Random(11)  # noqa: S311 - a clock, no secret
    with opened(clone(market, "what_if_live")) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql("set local session_replication_role = replica")
            connection.exec_driver_sql("update dispatch_recommendations set created_at = ts")
        desk = Desk(engine, Mode.REPLAY.calendar, DispatcherConfig(**BASE), Mode.SIMULATED, "test")
        for present in PRESENTS:
            ticks = accumulate(dice.randint(20_000, 150_000) for _ in range(1_000))
            clock = (present + timedelta(microseconds=moment) for moment in ticks)
            monkeypatch.setattr(knowledge, "read_now", lambda *_, clock=clock: next(clock))
            run_until_idle(desk)
        with engine.connect() as connection:
            found = what_if(connection, Mode.SIMULATED, ALWAYS, {})
            changed = what_if(connection, Mode.SIMULATED, ALWAYS, {"confidence_min": 0.8})
            real = ledger(connection)
    assert (found.equal, found.added) == (found.decisions, 0)
    assert found.decisions == len(real.decisions) > 100
    require_totals(found.before, real)
    assert changed.after.executed < changed.before.executed


def test_what_came_late_in_a_live_mode_is_seen_when_it_was_written() -> None:
    at = TS + timedelta(seconds=9)
    waiting = Waiting(an_owned(), at)
    assert asked._seen_from(waiting, Mode.REPLAY) == TS
    assert asked._seen_from(waiting, Mode.SIMULATED) == at
    assert asked._seen_from(Waiting(an_owned(), NOON), Mode.SIMULATED) == TS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"confidence_mini": 0.5}, "--set confidence_mini: no such key; did you mean conf"),
        ({"confidence_min": 7}, "--set confidence_min: must be between 0 and 1, not 7"),
        ({"confidence_min": "0.7"}, "--set confidence_min: must be a number"),
        ({"tier": "huge"}, "--set tier: must be one of tiny"),
        ({"max_recommendation_age_seconds": 30}, "must not be longer than"),
    ],
)
def test_a_setting_that_is_refused_is_named(
    connection: Connection, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        ask(connection, **changes)


def test_settings_of_a_run_that_are_no_settings_now_are_bad_configuration(
    connection: Connection,
) -> None:
    connection.exec_driver_sql("set session_replication_role = replica")
    connection.exec_driver_sql(
        "update dispatcher_runs set run_config_json = run_config_json || '{\"gone\": 1}'"
    )
    with pytest.raises(BadConfiguration, match="this version refuses: gone: no such key"):
        ask(connection)
    connection.rollback()


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ((None, date(2025, 2, 11)), "until 2025-02-11"),
        ((date(2025, 2, 14), None), "from 2025-02-14 on"),
        ((date(2025, 2, 15), date(2025, 2, 16)), "from 2025-02-15 to 2025-02-16"),
        ((date(2025, 2, 15), date(2025, 2, 15)), "on 2025-02-15"),
    ],
)
def test_days_without_a_run_are_bad_input(
    connection: Connection, days: tuple[date | None, date | None], said: str
) -> None:
    with pytest.raises(BadInput, match=f"never ran {said} in mode replay"):
        what_if(connection, Mode.REPLAY, days, {})


def watch(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    """What the plays in memory come to, in order: as it was, and changed."""
    plays: list[Played] = []
    play = asked.play

    def watched(past: Past, calendar: Calendar, presents: Iterable[Present]) -> Played:
        plays.append(play(past, calendar, presents))
        return plays[-1]

    monkeypatch.setattr(asked, "play", watched)
    return plays


def executions(found: Played) -> list[tuple[Any, ...]]:
    """The executions of a play, as they are read from a ledger."""
    traded = sorted((each for each in found.ended if each.is_traded), key=lambda each: each.key)
    return [
        (
            *each.key,
            "buy" if each.quantity > 0 else "sell",
            abs(each.quantity),
            each.price,
            each.at,
            each.stop_price,
            each.target_price,
            each.max_hold_minutes,
        )
        for each in traded
    ]


def an_owned() -> Owned:
    """A recommendation to buy AAPL."""
    row = Recommendation(
        1, TS, "AAPL", NOON, "BUY", "STOCK", "open", 0.8, TS + timedelta(minutes=5), 1
    )
    return Owned(row, DAY, {})


def _base(key: str) -> Any:
    return DispatcherConfig(**BASE).document()[key]


def _flips(found: WhatIf) -> set[tuple[str, datetime, bool, str]]:
    return {(flip.ticker, flip.minute, flip.is_traded, flip.reason) for flip in found.flips}


def _differences(before: Ledger, after: Ledger) -> set[tuple[str, datetime, bool, str]]:
    """The opening rows that are traded in one of two ledgers alone, and why not in the other."""
    then, now = (
        {row[:2]: (row[3] == "SIMULATED", row[4]) for row in each.decisions if row[2] == "open"}
        for each in (before, after)
    )
    return {
        (*key, now[key][0], then[key][1] or now[key][1])
        for key in then
        if then[key][0] != now[key][0]
    }
