"""What is tracked changes with a reason, and never under an open position."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.domain.errors import BadInput, Unsafe
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.values import Ticker
from ops_pipeline.operations import universe
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import universe as storage
from ops_pipeline_tests.dispatcher.world import World

SPY = Ticker("SPY", ("S&P 500",))


def symbols(connection: Connection) -> list[str]:
    return [ticker.symbol for ticker in storage.universe(connection)]


def test_an_added_ticker_is_tracked_with_its_names_and_the_reason_is_kept(
    connection: Connection,
) -> None:
    universe.add(connection, SPY, "a benchmark")
    assert SPY in storage.universe(connection)
    (change,) = storage.changes(connection, 9)
    assert (change.ticker, change.change, change.reason) == ("SPY", "added", "a benchmark")


def test_a_removed_ticker_is_gone_and_the_reason_is_kept(
    connection: Connection, xnys: Calendar
) -> None:
    universe.remove(connection, "META", xnys, "renamed")
    assert "META" not in symbols(connection)
    assert storage.changes(connection, 9)[0].reason == "renamed"


def test_the_newest_change_comes_first(connection: Connection, xnys: Calendar) -> None:
    universe.remove(connection, "META", xnys, "")
    universe.add(connection, SPY, "")
    assert [change.ticker for change in storage.changes(connection, 9)] == ["SPY", "META"]
    assert [change.ticker for change in storage.changes(connection, 1)] == ["SPY"]


@pytest.mark.parametrize("symbol", ["AAPL", "aapl", "", "'; drop table universe"])
def test_what_is_tracked_already_or_no_symbol_is_not_added(
    symbol: str, connection: Connection
) -> None:
    before = symbols(connection)
    with pytest.raises(BadInput):
        universe.add(connection, Ticker(symbol), "")
    assert symbols(connection) == before


def test_an_unknown_ticker_is_not_removed(connection: Connection, xnys: Calendar) -> None:
    with pytest.raises(BadInput, match="SPY is not tracked"):
        universe.remove(connection, "SPY", xnys, "")


def test_the_last_ticker_stays(connection: Connection, xnys: Calendar) -> None:
    storage.replace_universe(connection, [SPY])
    with pytest.raises(Unsafe, match="last"):
        universe.remove(connection, "SPY", xnys, "")


def test_a_ticker_that_is_held_is_not_removed(engine: Engine, xnys: Calendar) -> None:
    World(engine).hold("AAPL")
    with engine.begin() as connection, pytest.raises(Unsafe, match="AAPL is held: 10 shares"):
        universe.remove(connection, "AAPL", xnys, "")
    with engine.begin() as connection:
        assert "AAPL" in symbols(connection)
        universe.remove(connection, "MSFT", xnys, "")


FILE = """
tracked: [AAPL, SPY, XOM]
tickers: {AAPL: [Apple, iPhone], SPY: [], XOM: [Exxon], QQQ: []}
feeds: [{name: wire, url: "https://wire.example/feed"}]
"""


@pytest.fixture
def changed(settings: Settings, tmp_path: Path) -> Settings:
    """Settings whose universe file says something else than is tracked."""
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return replace(settings, universe_file=path)


TOLD = "add SPY, XOM; remove AMZN, GOOGL, META, MSFT, NVDA, TSLA; rename AAPL"


def test_what_a_changed_file_would_do_is_told_and_done_at_once(
    connection: Connection, changed: Settings
) -> None:
    before = storage.universe(connection)
    assert universe.difference(connection, changed).told == TOLD
    assert storage.universe(connection) == before
    assert universe.apply_file(connection, changed, "as mine.yaml says").told == TOLD
    assert symbols(connection) == ["AAPL", "SPY", "XOM"]
    assert storage.universe(connection)[0].aliases == ("Apple", "iPhone")
    assert universe.difference(connection, changed).told == ""
    assert len(storage.changes(connection, 99)) == 9


def test_a_file_that_leaves_out_what_is_held_changes_nothing(
    engine: Engine, changed: Settings
) -> None:
    World(engine).hold("MSFT")
    with pytest.raises(Unsafe, match="MSFT is held"), engine.begin() as connection:
        universe.apply_file(connection, changed, "")
    with engine.begin() as connection:
        assert "AMZN" in symbols(connection)


def test_the_sandbox_has_the_tickers_of_the_file_and_feeds_of_its_own(
    connection: Connection, changed: Settings
) -> None:
    sandbox = replace(changed, mode=Mode.SANDBOX)
    missing = universe.unserved(connection, sandbox)
    assert missing == ["AMZN", "GOOGL", "META", "MSFT", "NVDA", "TSLA"]
    assert universe.unserved(connection, replace(changed, mode=Mode.SIMULATED)) == []
    assert "mine.yaml are not fetched" in universe.sandbox_note(sandbox)
    assert universe.sandbox_note(replace(sandbox, universe_file=None)) == ""
    assert universe.sandbox_note(changed) == ""
