"""The verbs parity and lookahead: what they refuse, and that their ways are what they say."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ops_pipeline.cli import market, ways
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.proofs.lookahead import Lookahead, Sample
from ops_pipeline.proofs.parity import Difference, Parity, TableParity, Way
from ops_pipeline.proofs.scratch import scratch
from ops_pipeline.settings import Mode, Settings, save_window
from ops_pipeline.storage.databases import SCRATCH
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.fingerprint import TABLES
from ops_pipeline_tests.builders import DAY, OPENS_AT
from ops_pipeline_tests.cli.test_verbs import Run, ready, run  # noqa: F401 - fixtures

GOOD_BARS = "ticker,ts,open,high,low,close,volume\nAAPL,2025-02-12T14:30:00Z,10,11,9,10,100\n"

# The package has the verb in the module's place.
parity = import_module("ops_pipeline.cli.parity")


def left_behind(settings: Settings) -> list[str]:
    """Scratch databases of this installation that are still there."""
    with opened(settings) as engine, engine.connect() as connection:
        found = connection.exec_driver_sql("select datname from pg_database")
        return [row[0] for row in found if row[0].startswith(settings.base_name + SCRATCH)]


# What is refused.


@pytest.mark.parametrize("verb", ["parity", "lookahead"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--day", "2025-02-15"], "closed"),
        (["--day", "2025-02-17"], "closed"),
        (["--day", "2025-02-30"], "must be a day"),
        (["--day", "yesterday"], "must be a day"),
        (["--day", "2025-02-12", "--bars", "absent.csv"], "does not exist"),
        (["--day", "2025-02-12", "--tickers", "ZZZZ"], "unknown ticker"),
    ],
)
def test_proof_refuses_bad_words_in_one_line(
    ready: Run,  # noqa: F811
    server: Settings,
    verb: str,
    words: list[str],
    said: str,
) -> None:
    answer = ready(verb, *words)
    assert (answer.code, len(answer.error_lines), answer.out) == (2, 1, "")
    assert said in answer.err
    assert left_behind(server) == []


@pytest.mark.parametrize("verb", ["parity", "lookahead"])
def test_proof_refuses_a_day_that_the_file_does_not_have(
    ready: Run,  # noqa: F811
    tmp_path: Path,
    verb: str,
) -> None:
    bars = tmp_path / "bars.csv"
    bars.write_text(GOOD_BARS, encoding="utf-8")
    answer = ready(verb, "--day", "2025-02-13", "--bars", str(bars))
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert "has no bars from 2025-02-13" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["parity"], "--day"),
        (["lookahead"], "--day"),
        (["parity", "--day", "2025-02-12", "--seed", "soon"], "--seed"),
        (["lookahead", "--day", "2025-02-12", "--samples", "1"], "--samples"),
        (["lookahead", "--day", "2025-02-12", "--samples", "0"], "--samples"),
        (["lookahead", "--day", "2025-02-12", "--samples", "many"], "--samples"),
    ],
)
def test_proof_refuses_bad_options(run: Run, words: list[str], said: str) -> None:  # noqa: F811
    answer = run(*words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


# What is said, without playing.

CHANGED = Difference("signals", OPENS_AT, "AAPL", "rule", ("one", "other"), ('"A"', '"B"'))


@pytest.mark.parametrize(("differences", "code"), [([], 0), ([CHANGED], 1)])
def test_parity_ends_with_1_where_something_differs_and_names_it(
    ready: Run,  # noqa: F811
    server: Settings,
    monkeypatch: pytest.MonkeyPatch,
    differences: list[Difference],
    code: int,
) -> None:
    played = [Way("backfill", 1.0), Way("ticks", 2.0)]
    counted = TableParity("signals", 3, 390, 389, "ab" * 32)
    monkeypatch.setattr(parity, "_play", lambda *_, **__: played)
    result = Parity(DAY, played, [counted], differences)
    monkeypatch.setattr(parity, "_compare", lambda *_: result)
    answer = ready("parity", "--day", str(DAY))
    assert answer.code == code
    assert "389 of 390" in answer.out
    assert ('"B"' in answer.out) == bool(differences)
    found = json.loads(ready("parity", "--day", str(DAY), "--json").out)
    assert len(found["differences"]) == len(differences)
    assert left_behind(server) == []


@pytest.mark.parametrize(
    ("digests", "early", "code"),
    [("aaa", [], 0), ("aab", [], 1), ("aaa", ["early bars: AAPL"], 1)],
    ids=["clean", "differs", "early"],
)
def test_lookahead_ends_with_1_where_something_looks_ahead(
    ready: Run,  # noqa: F811
    server: Settings,
    monkeypatch: pytest.MonkeyPatch,
    digests: str,
    early: list[str],
    code: int,
) -> None:
    sample = Sample(OPENS_AT, *digests)
    differences = [CHANGED] if "b" in digests else []
    result = Lookahead(DAY, [sample], differences, early, 0)
    from ops_pipeline.defs import lookahead

    monkeypatch.setattr(lookahead, "play_and_prove", lambda *_: result)
    before = dict(os.environ)
    answer = ready("lookahead", "--day", str(DAY), "--samples", "2")
    assert answer.code == code
    assert f"{int(digests == 'aaa')} of 1 minutes" in answer.out
    assert all(name in answer.out for name in early)
    assert ('"B"' in answer.out) == bool(differences)
    assert json.loads(ready("lookahead", "--day", str(DAY), "--json").out)["early"] == early
    assert left_behind(server) == []
    assert {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} == {
        k: v for k, v in before.items() if k != "PYTEST_CURRENT_TEST"
    }


# Three ways to play the same twelve minutes.

SHORT = Session(DAY, OPENS_AT, OPENS_AT + 12 * MINUTE)
KILLS = (("features", 1), ("dispatch", 2))


@dataclass(frozen=True)
class Plays:
    """Twelve minutes played in each way, and which processes were killed on the way."""

    ways: list[Way]
    found: dict[str, Settings]
    killed: list[datetime]

    def compare(self) -> Parity:
        return parity._compare(SHORT, self.ways, self.found)

    def rows(self, way: str, statement: str) -> list[tuple[Any, ...]]:
        with opened(self.found[way]) as engine, engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def execute(self, way: str, statement: str) -> None:
        with opened(self.found[way]) as engine, engine.begin() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def plays(server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    # Beside the verbs' own scratches, which other tests here make and drop.
    assert server.server is not None
    own = replace(server.server, base_name="three_ways")
    settings = replace(server, server=own, var_dir=tmp_path_factory.mktemp("three_ways"))
    days = market.parse_day(str(DAY))
    request = market.requested(Mode.REPLAY.calendar, None, None, None, days, 7)
    killed: list[datetime] = []
    in_child = ways._in_child

    def watched(work: Any, variables: Any, minutes: Any, on_told: Any) -> None:
        try:
            in_child(work, variables, minutes, on_told)
        except ways.Killed:
            killed.append(minutes[0])
            raise

    with pytest.MonkeyPatch.context() as patched, ExitStack() as stack:
        patched.setattr(ways, "KILLS", KILLS)
        patched.setattr(ways, "_in_child", watched)
        patched.delenv("DATABASE_URL", raising=False)
        found = {
            way: stack.enter_context(scratch(settings, parity._name(way))) for way in parity.WAYS
        }
        for made in found.values():
            market.put(made, request)
            save_window(made, request.window)
        played = parity._play(settings, SHORT, quiet=True)
        yield Plays(played, found, killed)


def test_three_ways_give_equal_rows_in_every_table(plays: Plays) -> None:
    result = plays.compare()
    assert result.is_equal
    assert [table.table for table in result.tables] == [table.name for table in TABLES]
    assert {(table.minutes, table.minutes_equal) for table in result.tables} == {(12, 12)}
    empty = {table.table for table in result.tables if not table.rows}
    # Nothing is filled so soon after the open.
    assert empty <= {"bar_revisions", "dispatch_executions", "quarantines"}


def test_pieces_were_really_killed_and_played_again(plays: Plays) -> None:
    """A run keeps its name on what it did first, and says again when it does it again."""
    middle = SHORT.opens_at + 6 * MINUTE
    assert plays.killed == [SHORT.opens_at, middle]
    two_runs = """
        select minute from minute_cutoffs join stage_minutes as done using (minute)
        where done.stage = 'signals' and minute_cutoffs.run_id <> done.run_id order by minute"""
    begun = [row[0] for row in plays.rows("killed backfills", two_runs)]
    assert begun == SHORT.minutes()[:6]
    assert plays.rows("backfill", two_runs) == []
    after_dispatch = f"""
        select count(*) from stage_minutes
        where stage = 'news' and minute >= '{middle}' and written_at > (
            select min(written_at) from dispatcher_runs where started_at > '{middle + MINUTE}')"""
    assert plays.rows("killed backfills", after_dispatch) == [(6,)]
    assert plays.rows("backfill", after_dispatch) == [(0,)]


def test_ticks_are_as_many_plays_as_minutes(plays: Plays) -> None:
    """Each asks for its own window: a range writes all rows of a table in one transaction."""
    statement = "select count(distinct xmin::text) from watchlist_entries"
    assert plays.rows("backfill", statement) == [(1,)]
    assert plays.rows("ticks", statement) == [(3,)]


@pytest.mark.parametrize(
    ("table", "column", "change"),
    [
        ("signals", "confidence", "confidence = confidence * (1 - 1e-12)"),
        ("features.features_1m", "close", "close = close + 1e-9"),
        ("bars_1m", "volume", "volume = volume + 1"),
    ],
)
def test_one_value_changed_in_one_way_is_named(
    plays: Plays, table: str, column: str, change: str
) -> None:
    at = SHORT.opens_at + 7 * MINUTE
    where = f"where minute = '{at.isoformat()}' and ticker = (select min(ticker) from {table}"
    where += f" where minute = '{at.isoformat()}' and {column} > 0)"
    before = plays.rows("ticks", f"select {column} from {table} {where}")
    plays.execute("ticks", f"update {table} set {change} {where}")
    result = plays.compare()
    plays.execute("ticks", f"update {table} set {column} = '{before[0][0]!r}' {where}")
    assert not result.is_equal
    (found,) = result.differences
    assert (found.table, found.minute, found.column) == (table, at, column)
    assert found.ways == ("backfill", "ticks")
    (counted,) = [each for each in result.tables if each.table == table]
    assert counted.minutes_equal == 11
    assert plays.compare().is_equal


def test_piece_that_is_over_before_its_kill_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the way would be called killed, and nothing was."""
    monkeypatch.setattr(ways, "_in_child", lambda *_: None)
    with pytest.raises(OperatorError, match="was over before it could be killed"):
        ways.as_killed_pieces({}, SHORT.minutes(), lambda _: None)


def test_pieces_hold_every_minute_once(monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[datetime] = []

    def killed(_: object, __: object, ___: object, on_told: Any) -> None:
        for what, times in ways.KILLS:
            for _ in range(times):
                on_told(what)

    monkeypatch.setattr(ways, "_in_child", killed)
    monkeypatch.setattr(ways, "as_range", lambda _, piece, __: again.extend(piece))
    minutes = replace(SHORT, closes_at=SHORT.opens_at + 390 * MINUTE).minutes()
    ways.as_killed_pieces({}, minutes, lambda _: None)
    assert again == minutes


def test_process_that_fails_is_an_error_that_names_its_minutes() -> None:
    variables = {"OPS_MODE": "no such mode"}
    with pytest.raises(OperatorError, match="playing 2025-02-12 14:30:00"):
        ways.as_range(variables, SHORT.minutes(), lambda _: None)
