"""The look-ahead proof: silent on honest stages, loud on each leak that is planted."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from ops_pipeline.defs import dbt
from ops_pipeline.defs.assets import bars as bars_stage
from ops_pipeline.defs.lookahead import DECIDING
from ops_pipeline.defs.tick import tick
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.signals import Actionable
from ops_pipeline.proofs.lookahead import DECIDED, Lookahead, prove, sample_minutes
from ops_pipeline.settings import Settings
from ops_pipeline.storage import features, signals, watchlist
from ops_pipeline.storage.queries import texts
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.plays import DAY
from ops_pipeline_tests.defs.world import World, _on_a_short_stack, open_world, prepare

LAST = 39
REMOVED, POISONED = "future removed", "future poisoned"
# The tables that an absurd future is put into, and how its rows are told.
PLACES = {
    "bars_1m": "feed = 'poison'",
    "bar_revisions": "close = 123456",
    "news_items": "title = 'poison'",
    "news_sentiments": "backend = 'poison'",
    "news_tickers": "span = 'poison'",
    "features.features_1m": "close = 123456",
    "watchlist_entries": "reason = 'poison'",
    "signals": "rule = 'poison'",
}


def minute(world: World, number: int) -> datetime:
    return world.session(DAY).minutes()[number]


def as_played(world: World, last: int = LAST) -> None:
    world.open_market(*generated(DAY))
    world.stages(minute(world, 0), minute(world, last))


@pytest.fixture(scope="module")
def forty_minutes(template: Settings) -> Settings:
    return prepare(template, "forty_minutes", as_played)


@pytest.fixture
def played(forty_minutes: Settings) -> Iterator[World]:
    """The first forty minutes of a day with news, as one range."""
    with open_world(forty_minutes) as world:
        world.open_market(*generated(DAY))
        yield world


def proof(
    world: World, *minutes: datetime, recompute: Callable[[datetime], None] | None = None
) -> Lookahead:
    """The proof of these minutes, with the stages' own code."""

    def decide(at: datetime) -> None:
        tick(world.pipeline, at, at, DECIDING)

    found: Lookahead = _on_a_short_stack(
        prove,
        world.pipeline.engine,
        world.session(DAY),
        sorted(minutes),
        world.pipeline.classifier.model,
        recompute or decide,
    )
    return found


def a_minute_with(world: World, what: str) -> datetime:
    """The last minute before the last played one that has such rows and decides no watchlist."""
    found: datetime = world.value(
        f"select max(minute) as at from {what} and minute < :last"
        " and cast(extract(minute from minute) as integer) % 5 <> 0",
        last=minute(world, LAST),
    )
    return found


def tracked(world: World) -> list[str]:
    return [row["ticker"] for row in world.rows("select ticker from universe")]


def with_recommendation(world: World) -> datetime:
    return a_minute_with(world, "signals where action <> 'HOLD'")


def with_news(world: World) -> datetime:
    return a_minute_with(world, "features.features_1m where news_count_30 > 0")


def caught(found: Lookahead) -> set[tuple[str, str]]:
    """Where the decisions differ from what was stored: with which future, in which table."""
    return {(difference.ways[1], difference.table) for difference in found.differences}


# Honest stages.


def test_honest_stages_pass_in_every_kind_of_minute(played: World) -> None:
    wanted = {
        minute(played, 0),
        minute(played, 20),
        with_news(played),
        with_recommendation(played),
        minute(played, LAST),
    }
    found = proof(played, *wanted)
    assert [sample.minute for sample in found.samples] == sorted(wanted)
    assert (found.day, found.differences, found.early) == (DAY, [], [])
    assert found.is_clean


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("features.features_1m", "sma20 = sma20 * (1 + 1e-12)"),
        ("watchlist_entries", "score = score * (1 - 1e-12)"),
        ("signals", 'reason = reason || \'{"rule": "another"}\''),
    ],
)
def test_changed_row_of_any_decided_table_is_named(played: World, table: str, change: str) -> None:
    due = minute(played, 35)
    played.execute(f"update {table} set {change} where minute = :at", at=due)
    found = proof(played, due)
    assert caught(found) == {(REMOVED, table), (POISONED, table)}
    (sample,) = found.samples
    assert sample.stored != sample.removed == sample.poisoned
    assert not found.is_clean


@dataclass(frozen=True)
class Seen:
    """What a minute found when it was decided again: tables with poison, and counts of rows."""

    poison: set[str]
    later: int
    decided: int


def look(world: World, at: datetime) -> Seen:
    counts = {
        table: world.value(f"select count(*) as n from {table} where {told}")
        for table, told in PLACES.items()
    }
    known = "select cutoff from minute_cutoffs where minute = :at"
    later = sum(
        world.value(f"select count(*) as n from {t} where available_at > ({known})", at=at)
        for t in PLACES
    )
    decided = sum(
        world.value(
            f"select count(*) as n from {t} where minute = :at and available_at = ({known})", at=at
        )
        for t in DECIDED
    )
    return Seen({table for table, count in counts.items() if count}, later, decided)


def test_future_is_gone_and_then_absurd_while_a_minute_is_decided_again(played: World) -> None:
    at = with_recommendation(played)
    seen: list[Seen] = []
    proof(played, at, recompute=lambda again: seen.append(look(played, again)))
    removed, poisoned = seen
    assert removed == Seen(set(), 0, 0)
    assert poisoned.poison == set(PLACES)
    # Of each ticker 4 bars, a revision, a link, a feature row, 2 watchlist entries, a signal.
    assert poisoned.later == 10 * len(tracked(played)) + len(["item", "score"])
    assert poisoned.decided == 0


def test_a_stage_that_decides_nothing_is_caught(played: World) -> None:
    found = proof(played, with_recommendation(played), recompute=lambda _: None)
    assert not found.is_clean
    assert caught(found) == {
        (future, table)
        for future in (REMOVED, POISONED)
        for table in ("features.features_1m", "signals")
    }


def test_minutes_that_nobody_decided_are_left_out(played: World) -> None:
    found = proof(played, minute(played, 5), minute(played, LAST + 1))
    assert [sample.minute for sample in found.samples] == [minute(played, 5)]


@pytest.mark.parametrize("count", [2, 3, 32, 1000])
def test_samples_reach_from_open_to_close_without_repeating(world: World, count: int) -> None:
    session = world.session(DAY)
    found = sample_minutes(session, count)
    assert (found[0], found[-1]) == (session.minutes()[0], session.minutes()[-1])
    assert found == sorted(set(found))
    assert len(found) == min(count, 390)


def test_minute_with_a_late_cut_off_is_proved_too(played: World) -> None:
    """It could know bars of later minutes, which the absurd ones would stand beside."""
    last = minute(played, LAST - 1)
    late = "interval '5 minutes'"
    played.execute(
        f"update minute_cutoffs set cutoff = cutoff + {late} where minute = :at", at=last
    )
    for table in DECIDED:
        played.execute(
            f"update {table} set available_at = available_at + {late} where minute = :at", at=last
        )
    assert proof(played, last).is_clean


# Leak 1: bars that count as known at their open.


def known_at_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars_stage, "bar_known_at", lambda at: at)


def test_leak_database_refuses_a_bar_that_counts_as_known_at_its_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_at_open(monkeypatch)
    with pytest.raises(IntegrityError, match="violates check constraint"):
        as_played(world, 2)
    assert world.value("select count(*) as n from bars_1m") == 0


def test_leak_bars_known_at_their_open_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_at_open(monkeypatch)
    name = world.value(
        "select conname from pg_constraint where conrelid = cast('bars_1m' as regclass)"
        " and contype = 'c' and pg_get_constraintdef(oid) like '%available_at%'"
    )
    world.execute(f"alter table bars_1m drop constraint {name}")
    as_played(world, 2)
    found = proof(world, minute(world, 0), minute(world, 2))
    assert not found.is_clean
    assert any(row.startswith("early bars: AAPL 2025-02-12 14:30:00") for row in found.early)
    assert len(found.early) == world.value(
        "select count(*) as n from bars_1m where feed <> 'poison'"
    ) + 2 * len(tracked(world))


# Leak 2: models that do not ask when a row was known.


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Change a model in a copy of the dbt project, which is the project from then on."""
    project = tmp_path / "dbt_features"
    shutil.copytree(dbt.DBT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))

    def change(model: str, honest: str, leaking: str) -> None:
        (path,) = project.rglob(f"{model}.sql")
        source = path.read_text(encoding="utf-8")
        assert source.count(honest) == 1
        path.write_text(source.replace(honest, leaking), encoding="utf-8")
        monkeypatch.setattr(dbt, "DBT_DIR", project)
        dbt._manifest.cache_clear()

    yield change
    dbt._manifest.cache_clear()


LEAKS_IN_MODELS = {
    "bars that came in later": (
        "int_bars_windowed",
        "and bars.available_at <= minutes.available_at",
        "",
    ),
    "news by publication time": (
        "stg_ticker_scores",
        "greatest(items.available_at, links.available_at, scores.available_at) as available_at",
        "items.event_at as available_at",
    ),
}


@pytest.mark.parametrize("leak", LEAKS_IN_MODELS.values(), ids=list(LEAKS_IN_MODELS))
def test_leak_in_a_model_is_caught_by_the_absurd_future(
    world: World, edit: Callable[..., None], leak: tuple[str, str, str]
) -> None:
    """Played with the leak: what is stored equals what comes out without a future."""
    edit(*leak)
    as_played(world, 11)
    found = proof(world, minute(world, 7), minute(world, 11))
    assert [sample.is_equal for sample in found.samples] == [False, False]
    assert (POISONED, "features.features_1m") in caught(found)
    assert {future for future, _ in caught(found)} == {POISONED}


def test_leak_whose_bar_is_said_to_be_an_older_one_fails_the_models_own_test(
    world: World, edit: Callable[..., None]
) -> None:
    """The windows reach a minute ahead, and `bar_at` is clipped so that nobody sees it."""
    until = "and bars.minute <= minutes.minute\n"
    edit("int_bars_windowed", until, until.replace("\n", " + interval '1 minute'\n"))
    edit("int_bars_windowed", "and bars.available_at <= minutes.available_at", "")
    clipped = "least(max(returned.minute), minutes.minute) as bar_at"
    edit("int_bars_windowed", "max(returned.minute) as bar_at", clipped)
    as_played(world, 11)
    assert world.value("select bool_and(bar_at <= minute) from features.features_1m")
    assert said_by_dbt(world, "features_do_not_look_ahead") == "fail"


def test_copy_of_the_models_alone_leaks_nothing(world: World, edit: Callable[..., None]) -> None:
    """What is caught above is the edit, not the copy."""
    edit("stg_bars_1m", "(high + low + close) / 3", "(low + high + close) / 3")
    as_played(world, 11)
    assert said_by_dbt(world, "features_do_not_look_ahead") == "pass"
    assert proof(world, minute(world, 7), minute(world, 11)).is_clean


def said_by_dbt(world: World, name: str) -> str:
    """What dbt says of one of its tests over the minutes that were played."""
    window = dbt.window_vars(minute(world, 0), minute(world, 12), world.pipeline.classifier.model)
    nodes = _on_a_short_stack(dbt.run, world.settings, "test", window)
    return str(nodes[name].status)


# Leak 3: rules that join what they may not.


def with_features_of_the_next_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = features.features_between

    def shifted(connection: Connection, start: datetime, end: datetime) -> dict[datetime, Any]:
        found = honest(connection, start + MINUTE, end + MINUTE)
        return {
            at - MINUTE: [replace(row, minute=at - MINUTE) for row in rows]
            for at, rows in found.items()
        }

    monkeypatch.setattr(features, "features_between", shifted)


def test_leak_features_of_the_next_minute_are_caught_by_their_removal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_features_of_the_next_minute(monkeypatch)
    as_played(world, 11)
    assert world.value("select count(*) as n from signals where action <> 'HOLD'")
    found = proof(world, minute(world, 5), minute(world, 7))
    assert [sample.is_equal for sample in found.samples] == [False, False]
    assert {(REMOVED, "watchlist_entries"), (REMOVED, "signals")} <= caught(found)
    assert "features.features_1m" not in {difference.table for difference in found.differences}


def believe_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cooldown that does not ask when a recommendation was known."""

    def believed(
        connection: Connection, session_date: object, start: datetime, _: datetime
    ) -> dict[str, list[Actionable]]:
        rows = connection.execute(
            text(
                "select ticker, minute from signals where session_date = :day"
                " and minute < :start and action <> 'HOLD' order by minute"
            ),
            {"day": session_date, "start": start},
        )
        found: dict[str, list[Actionable]] = {}
        for ticker, at in rows:
            found.setdefault(ticker, []).append(Actionable(at, at))
        return found

    monkeypatch.setattr(signals, "actionable_known", believed)


def believe_watchlist(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchlist that does not ask when a decision was known."""
    statement = texts("watchlist")["decisions_known"]
    for condition in (
        "and decided.available_at <= asked.cutoff",
        "and newest.cutoff >= entry.available_at",
    ):
        assert statement.count(condition) == 1
        statement = statement.replace(condition, "")

    def believed(
        connection: Connection, day: object, start: datetime, end: datetime, *, before: datetime
    ) -> list[Any]:
        asked = {"session_date": day, "start": start, "end": end, "before": before}
        rows = connection.execute(text(statement), asked).mappings()
        found = [watchlist._decision(row) for row in rows]
        return [replace(decision, available_at=decision.minute) for decision in found]

    monkeypatch.setattr(watchlist, "decisions_known", believed)


def test_leak_cooldown_after_a_recommendation_not_yet_known_is_caught(
    played: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_signals(monkeypatch)
    found = proof(played, with_recommendation(played))
    assert caught(found) == {(POISONED, "signals")}
    assert ("rule", '"COOLDOWN"') in {(d.column, d.values[1]) for d in found.differences}


@pytest.mark.parametrize("number", [35, 37])
def test_leak_watchlist_not_yet_known_is_caught(
    played: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """In a minute that decides the watchlist itself, and in one that only asks who is in."""
    believe_watchlist(monkeypatch)
    found = proof(played, minute(played, number))
    table = "signals" if number % 5 else "watchlist_entries"
    assert {future for future, _ in caught(found)} == {POISONED}
    assert (POISONED, table) in caught(found)
