"""A session that was decided already is proved in a scratch; its own rows are only read."""

import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import text

from ops_pipeline.defs import lookahead
from ops_pipeline.defs.lookahead import copy_and_prove
from ops_pipeline.domain.session import Session
from ops_pipeline.proofs.lookahead import Lookahead, sample_minutes
from ops_pipeline.settings import Settings
from ops_pipeline.storage.copies import copy_session
from ops_pipeline.storage.databases import SCRATCH
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.fingerprint import TABLES, rows_of
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.plays import HALF_DAY
from ops_pipeline_tests.defs.world import (
    World,
    _on_a_short_stack,
    administrator,
    open_world,
    prepare,
)
from ops_pipeline_tests.storage.clones import clone
from ops_pipeline_tests.storage.rows import insert

pytestmark = pytest.mark.slow
SAMPLES = 4
DAYS = (HALF_DAY, HALF_DAY)
# What the decisions stand on, and what they are; the rest the dispatcher makes of them.
COPIED = [table for table in TABLES if not table.name.startswith("dispatch")]


@pytest.fixture(scope="module")
def half_day(template: Settings) -> Settings:
    def play(world: World) -> None:
        world.open_market(*generated(HALF_DAY))
        minutes = world.session(HALF_DAY).minutes()
        world.stages(minutes[0], minutes[-1])

    return prepare(template, "half_day", play)


@pytest.fixture
def played(half_day: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A session that was decided from open to close; four of its minutes are proved."""
    monkeypatch.setattr(lookahead, "SAMPLES", SAMPLES)
    with open_world(half_day) as world:
        world.open_market(*generated(HALF_DAY), days=DAYS)
        yield world


def session(world: World) -> Session:
    return world.session(HALF_DAY)


def samples(world: World) -> list[datetime]:
    return sample_minutes(session(world), SAMPLES)


def proved(world: World) -> Lookahead:
    found: Lookahead = _on_a_short_stack(copy_and_prove, world.settings, session(world))
    return found


def scratches(world: World) -> list[str]:
    with administrator(world.settings) as connection:
        found = connection.execute("select datname from pg_database").fetchall()
    return [row[0] for row in found if SCRATCH in row[0]]


def check(world: World) -> dg.AssetCheckEvaluation:
    (found,) = world.job("lookahead_job").get_asset_check_evaluations()
    assert found.check_name == "nothing_looks_ahead"
    return found


def alter(world: World, at: datetime) -> None:
    world.execute(
        "update features.features_1m set sma20 = sma20 * 1.01"
        " where ticker = 'AAPL' and minute = :at",
        at=at,
    )


def test_session_is_proved_in_a_scratch_that_is_gone_after(
    played: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    proving = lookahead.prove

    def watched(*args: object) -> Lookahead:
        seen.append(scratches(played))
        return proving(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lookahead, "prove", watched)
    before, variables = played.hashes(), dict(os.environ)
    found = proved(played)
    assert found.is_clean
    assert [sample.minute for sample in found.samples] == samples(played)
    name = f"world{SCRATCH}lookahead_check_replay"
    assert [sorted(names) for names in seen] == [[name, f"{name}_dagster"]]
    assert scratches(played) == []
    assert not (played.settings.var_dir / "scratch" / "lookahead_check").exists()
    assert played.hashes() == before
    assert dict(os.environ) == variables


def test_scratch_is_gone_after_a_proof_that_failed(
    played: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        assert scratches(played)
        raise RuntimeError("in the middle")

    monkeypatch.setattr(lookahead, "prove", fail)
    variables = dict(os.environ)
    with pytest.raises(RuntimeError, match="in the middle"):
        proved(played)
    assert scratches(played) == []
    assert dict(os.environ) == variables


def test_copy_holds_every_row_that_the_session_decided_and_stood_on(
    played: World, template: Settings
) -> None:
    """Of the bars before the open only as many as a minute looks back at."""
    target = open_engine(clone(template, "copy_of_half_day"))
    with target.begin() as connection:
        connection.exec_driver_sql("delete from universe")
    copy_session(played.pipeline.engine, target, session(played))
    between = session(played).opens_at, session(played).closes_at
    with played.pipeline.engine.connect() as source, target.connect() as copied:
        for table in COPIED:
            if table.name != "news_provenance":
                whole, own = rows_of(source, table, between), rows_of(copied, table, between)
                assert own == whole, table.name
        earlier = "select ticker, count(*) from bars_1m where minute < %s group by ticker"
        found = copied.exec_driver_sql(earlier, (between[0],)).all()
    target.dispose()
    assert len(found) == 7
    assert {count for _, count in found} == {180}


def test_check_passes_on_an_honest_session(played: World) -> None:
    found = check(played)
    assert found.passed
    assert found.description == "2025-11-28: 4 minutes, 0 of them differ, 0 rows known too early"
    assert found.metadata["differences"].value == "none"


def test_check_passes_though_what_is_tracked_has_changed_since(played: World) -> None:
    played.execute("delete from universe where ticker = 'AAPL'")
    played.execute("insert into universe (ticker, aliases) values ('ZZZZ', '{}')")
    found = check(played)
    assert found.description == "2025-11-28: 4 minutes, 0 of them differ, 0 rows known too early"


def test_minutes_that_were_decided_under_another_model_are_left_out(played: World) -> None:
    played.execute(
        "update news_sentiments set revision = 'before' where available_at <="
        " (select cutoff from minute_cutoffs where minute = :at)",
        at=samples(played)[1],
    )
    found = check(played)
    assert found.passed
    assert str(found.description).startswith("2025-11-28: 2 minutes, 0 of them differ")
    assert str(found.description).endswith(", 2 left out: another model's scores")


def test_session_that_was_decided_under_another_model_is_no_failure(played: World) -> None:
    """The model was changed between the close and the proof."""
    played.execute("update news_sentiments set revision = 'before'")
    found = check(played)
    assert found.passed
    assert str(found.description).endswith(", 4 left out: another model's scores")


def test_check_fails_and_names_the_row_that_was_altered_by_hand(played: World) -> None:
    at = samples(played)[2]
    alter(played, at)
    found = check(played)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.metadata["differ"].value == 1
    named = str(found.metadata["differences"].value)
    assert f"- features.features_1m {at.isoformat()} AAPL, sma20: " in named
    assert all(future in named for future in ("future removed", "future poisoned"))


def test_check_names_a_row_that_counts_as_known_too_early(played: World) -> None:
    at = samples(played)[1]
    played.execute(
        "update signals set available_at = minute where minute = :at and ticker ="
        " (select min(ticker) from signals where minute = :at)",
        at=at,
    )
    found = check(played)
    assert not found.passed
    assert found.metadata["known_too_early"].value == 1
    assert "early decisions: signal " in str(found.metadata["differences"].value)


def test_a_headline_that_stood_in_a_story_before_the_copied_hour_is_not_known_too_early(
    played: World,
) -> None:
    """Its text was scored when the first story came, long before what features look back at."""
    before = session(played).opens_at - timedelta(hours=3)
    (told,) = played.rows(
        "select item.* from news_items as item join news_sentiments using (text_hash)"
        " order by item.event_at limit 1"
    )
    first = told | {"news_id": "the first", "event_at": before, "published_at": before}
    first |= {"available_at": before + timedelta(seconds=5)}
    with played.pipeline.engine.begin() as connection:
        connection.exec_driver_sql("set local session_replication_role = replica")
        insert(connection, "news_items", "news_id", **first)
        connection.execute(
            text("update news_sentiments set available_at = :known where text_hash = :hash"),
            {"known": before + timedelta(seconds=7), "hash": told["text_hash"]},
        )
    found = proved(played)
    assert found.early == []
    assert found.is_clean


def test_check_without_any_session_passes_and_says_so(world: World) -> None:
    world.open_market(*generated(HALF_DAY), days=DAYS)
    found = check(world)
    assert found.passed
    assert found.description == "no session has closed yet"


@pytest.mark.parametrize(("newest", "day"), [(-1, HALF_DAY), (-2, date(2025, 11, 26))])
def test_check_asks_for_the_newest_session_that_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, newest: int, day: date
) -> None:
    """A session that still goes on is not proved; the one before it is."""
    from ops_pipeline.defs.checks import lookahead as checks

    asked: list[date] = []

    def proving(_: Settings, wanted: Session) -> Lookahead:
        asked.append(wanted.day)
        return Lookahead(wanted.day, [], [], [], 0)

    monkeypatch.setattr(checks, "copy_and_prove", proving)
    world.open_market(*generated(HALF_DAY), days=DAYS)
    before = world.calendar.before(HALF_DAY)
    for at in (before.minutes()[-1], session(world).minutes()[newest]):
        decide(world, at)
    check(world)
    assert asked == [day]


def test_first_session_that_still_goes_on_is_nothing_to_prove_yet(world: World) -> None:
    world.open_market(*generated(HALF_DAY), days=DAYS)
    decide(world, session(world).minutes()[5])
    assert check(world).description == "no session has closed yet"


def decide(world: World, minute: datetime) -> None:
    world.execute(
        "insert into stage_minutes (stage, minute, session_date, rows_count, run_id)"
        " values ('signals', :at, :day, 0, 'by hand')",
        at=minute,
        day=world.calendar.day(minute),
    )
