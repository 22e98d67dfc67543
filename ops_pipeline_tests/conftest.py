"""One embedded server for the session, one migrated template, one clone of it for each test."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.domain.session import Calendar
from ops_pipeline.environment import OWN, PROXY, RESOLVED, controlled, enter
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline.settings import Mode, Server, Settings, load
from ops_pipeline.storage.databases import create_databases, grant_reader
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.migrate import migrate
from ops_pipeline.storage.universe import replace_universe

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data"
# What a folder's tests need, and so what they cost; a test without a mark is fast.
MARKS = {
    "storage": ["postgres"],
    "dispatcher": ["postgres"],
    "proofs": ["postgres"],
    "local": ["postgres"],
    "engine": ["postgres", "dagster"],
    "operations": ["postgres"],
    "defs": ["postgres", "dagster", "dbt"],
    "dbt": ["postgres", "dagster", "dbt"],
    "acceptance": ["postgres", "dagster", "dbt", "slow"],
    "cli": ["postgres", "slow"],
}
# Whole days, kills and benchmarks: make proofs runs them, longest first.
PROOFS = (
    "proofs/test_chaos.py",
    "cli/test_up.py",
    "cli/test_backfill.py",
    "cli/test_proofs.py",
    "defs/test_parity.py",
    "defs/test_launchers.py",
    "cli/test_model.py",
    "benchmarks/test_day.py",
    "benchmarks/test_dispatch.py",
    "benchmarks/test_tick.py",
    "benchmarks/test_trade_stream_lag.py",
    "defs/test_both_ends.py",
)
# How thorough some tests are; all else of the caller's environment that we read is taken away.
TEST_KNOBS = ("OPS_CALENDAR", "OPS_STREAM_SEEDS")
# These begin before all others, in this order: the last to end would be waited for alone.
LONGEST = (
    *PROOFS,
    "operations/test_runbook_faults.py",
    "dispatcher/test_stream_faults.py",
    "defs/test_slo.py",
    "operations/test_what_if.py",
    "dbt/test_features_against_pandas.py",
    "acceptance/test_generated_day.py",
    "defs/test_ingest.py",
    "operations/test_alerts.py",
    "defs/test_lookahead.py",
    "engine/test_launcher.py",
    "engine/test_partitions.py",
    "defs/test_lookahead_check.py",
    "local/test_postgres.py",
    "dispatcher/test_machine.py",
    "clients/test_finbert_models.py",
    "engine/test_retention.py",
    "cli/test_ingest_verbs.py",
)


def pytest_configure() -> None:
    """Do without the caller's variables and `.env`; hear an interrupt also in the background."""
    isolate()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def isolate() -> None:
    """Take away what the caller's shell, proxy and `.env` would change, also in children."""
    kept = {
        name: value
        for name, value in controlled(os.environ).items()
        if name.startswith(TEST_KNOBS)
        or not (OWN.fullmatch(name) or PROXY.fullmatch(name) or name.startswith("DAGSTER_"))
    }
    os.environ.clear()
    os.environ.update({**kept, RESOLVED: "off"})
    enter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    proofs = {here / name for name in PROOFS}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for item in items:
        folder = Path(item.path).relative_to(here).parts[0]
        for mark in MARKS.get(folder, []):
            item.add_marker(mark)
        if item.path in proofs:
            item.add_marker("proof")
        if folder not in MARKS and not item.get_closest_marker("slow"):
            item.add_marker("fast")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a running embedded server of its own; its var folder is empty otherwise."""
    var_dir = tmp_path_factory.mktemp("var")
    embedded = EmbeddedServer.in_folder(var_dir)
    embedded.start()
    settings = load("replay", {"OPS_VAR_DIR": str(var_dir)})
    sync(settings, is_on=False)
    yield settings
    embedded.remove()


@pytest.fixture
def durable(server: Settings) -> Iterator[None]:
    """Let the session's server wait for its disk, as it does in life."""
    sync(server, is_on=True)
    yield
    sync(server, is_on=False)


def sync(settings: Settings, *, is_on: bool) -> None:
    """Whether a server waits for its disk: only a machine that loses its power would tell."""
    with _administrator(settings) as connection:
        connection.execute(f"alter system set fsync = {'on' if is_on else 'off'}")
        connection.execute("select pg_reload_conf()")
    with _administrator(settings) as connection:
        while connection.execute("show fsync").fetchone() != ("on" if is_on else "off",):
            time.sleep(0.01)


@pytest.fixture(scope="session")
def template(server: Settings) -> Settings:
    """A migrated database with the default universe, to be cloned."""
    settings = _named(server, "template")
    create_databases(settings)
    engine = open_engine(settings)
    migrate(engine)
    grant_reader(settings)
    with engine.begin() as connection:
        replace_universe(connection, tickers_of(DEFAULT_TICKERS))
    engine.dispose()
    return settings


@pytest.fixture
def settings(template: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings of replay mode with a database of this test's own."""
    own = replace(_named(template, f"t{uuid4().hex[:12]}"), var_dir=tmp_path)
    with _administrator(template) as connection:
        connection.execute(
            f'create database "{own.pipeline_database}" template "{template.pipeline_database}"'
        )
    yield own
    with _administrator(template) as connection:
        connection.execute(f'drop database "{own.pipeline_database}" with (force)')


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine on this test's database."""
    made = open_engine(settings)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    with engine.connect() as made:
        yield made


@pytest.fixture(scope="session")
def xnys() -> Calendar:
    """The calendar of the exchange."""
    return Mode.REPLAY.calendar


@pytest.fixture
def recorded() -> Path:
    """The folder of recorded data, where it is present."""
    if not RECORDED.is_dir():
        pytest.skip(f"no recorded data at {os.path.relpath(RECORDED)}")
    return RECORDED


def _named(settings: Settings, base_name: str) -> Settings:
    assert isinstance(settings.server, Server)
    return replace(settings, server=replace(settings.server, base_name=base_name))


def _administrator(settings: Settings) -> psycopg.Connection:
    server = settings.server
    assert server is not None
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
    )
