"""What the pipeline depends on, one by one: whether it works, and what to do where it does not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ops_pipeline import __version__
from ops_pipeline.clients.alpaca_account import MAX_SKEW_SECONDS, clock_skew_seconds
from ops_pipeline.clients.alpaca_orders import AlpacaOrders
from ops_pipeline.clients.classifiers import classifier_of
from ops_pipeline.clients.live import access_of, live_bars, live_news
from ops_pipeline.clients.universe import universe_file
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.alerts import CONSOLE
from ops_pipeline.domain.errors import BadConfiguration, NotRunning, OperatorError
from ops_pipeline.domain.gates import ACTIVE
from ops_pipeline.domain.machine import disk_verdict
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.stream import stream_state, sums_verdict
from ops_pipeline.domain.thresholds import tier_of
from ops_pipeline.domain.values import FeedOutcome, FeedStatus
from ops_pipeline.local.keeper import log_dir, table_of
from ops_pipeline.local.machine import free_bytes
from ops_pipeline.local.ticks import code_location, late_ticks, newest_ticks
from ops_pipeline.operations import dead_man
from ops_pipeline.operations.config import config_of, in_force
from ops_pipeline.operations.runbook.stream import other_database
from ops_pipeline.settings import (
    DAEMON,
    STREAM,
    BrokerName,
    Settings,
    alert_channels_of,
    alert_quiet_of,
    masked,
    require_consent,
)
from ops_pipeline.storage.alerts import ChannelState, channel_states, open_alerts
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.migrate import pending
from ops_pipeline.storage.stream import read_health
from ops_pipeline.storage.universe import universe

TICKS = "schedules and sensors"
RESTART = "run: ops-pipeline runbook fix trade-stream-not-running"


class Health(StrEnum):
    """What became of a look at a dependency."""

    OK = "ok"
    FAILED = "FAILED"
    UNUSED = "unused"


@dataclass(frozen=True)
class Finding:
    """One dependency; `found` is one line without secrets."""

    dependency: str
    health: Health
    found: str
    hint: str = ""


Now = Callable[[], datetime]


def examine(settings: Settings, now: Now) -> Iterator[Finding]:
    """Look at one dependency after the other; none keeps the next from being looked at."""
    yield _looked("database", lambda: _database(settings))
    yield _looked("migrations", lambda: _migrations(settings))
    if table_of(settings).find(DAEMON):
        yield _looked("code location", lambda: _code_location(settings))
        yield _looked(TICKS, lambda: _ticks(settings, now))
    if settings.mode.is_live:
        yield _looked("alpaca bars", lambda: live_bars(settings, now).probe())
        yield _looked("alpaca clock", lambda: _clock(settings, now))
        if settings.broker is BrokerName.ALPACA:
            yield _looked("broker account", lambda: _account(settings, now))
        yield from _feeds(settings, now)
        if settings.mode.is_followed:
            yield _looked("trade stream", lambda: _stream(settings, now))
    else:
        for name in ("alpaca bars", "alpaca clock", "feeds"):
            yield Finding(name, Health.UNUSED, f"mode {settings.mode.value} asks nobody")
    if settings.mode.is_live:
        yield _looked("alert channels", lambda: _alerts(settings))
        if settings.dead_man_url:
            yield _looked("dead man's switch", lambda: _dead_man(settings))
    yield _looked("model", lambda: _model(settings))
    yield _looked("disk", lambda: _disk(settings))
    for name in settings.mode.processes:
        yield _looked(name, partial(_process, settings, name))


def _looked(dependency: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(dependency, Health.OK, look())
    except OperatorError as error:
        return Finding(dependency, Health.FAILED, str(error), error.hint)
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever it meets
        return Finding(dependency, Health.FAILED, f"{type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


def _database(settings: Settings) -> str:
    with reachable(settings), opened(settings) as engine, engine.connect() as connection:
        version: str = connection.execute(text("show server_version")).scalar_one()
    server = settings.server
    where = f"{server.host}:{server.port}" if server else ""
    return f"PostgreSQL {version} at {where}, database {settings.pipeline_database}"


def _migrations(settings: Settings) -> str:
    with reachable(settings), opened(settings) as engine:
        waiting = pending(engine)
    if waiting:
        raise BadConfiguration(f"{', '.join(waiting)} did not run", "run: ops-pipeline init")
    return "none waits"


def _code_location(settings: Settings) -> str:
    """Whether Dagster has our code: without it nothing ticks, though every process runs."""
    found = code_location(settings, table_of(settings))
    if found.error or not found.is_loaded:
        raise NotRunning(found.error or "is not loaded yet", "look at: ops-pipeline logs code")
    return "is loaded"


def _ticks(settings: Settings, now: Now) -> str:
    """Whether schedules and sensors tick: that the daemon runs does not say that they do."""
    at, found = now(), newest_ticks(settings)
    ages = {name: tick and (at - tick).total_seconds() for name, tick in found.items()}
    told = ", ".join(
        f"{name} never ticked" if age is None else f"{name} ticked {age:.0f} s ago"
        for name, age in ages.items()
    )
    if late_ticks(settings, table_of(settings), at):
        raise NotRunning(told, "look at: ops-pipeline logs daemon")
    return told or "every one was stopped by hand, or Dagster has run nothing here"


def _clock(settings: Settings, now: Now) -> str:
    access = access_of(settings)
    skew = clock_skew_seconds(access, now)
    told = f"key {access.masked_key}, its clock {skew:+.1f} s from ours"
    if abs(skew) > MAX_SKEW_SECONDS:
        raise BadConfiguration(
            f"{told}; more than {MAX_SKEW_SECONDS:.0f} s", "set this machine's clock by NTP"
        )
    return told


def _account(settings: Settings, now: Now) -> str:
    """The account that orders go to, and whether they may."""
    account = AlpacaOrders(access_of(settings), now).account()
    require_consent(settings, account.number)
    if account.is_blocked:
        raise OperatorError("the broker has blocked the account", "look at it on Alpaca's own page")
    told = f"paper account {masked(account.number)}, equity {account.equity_usd:,.0f} USD"
    with reachable(settings), opened(settings) as engine, engine.connect() as connection:
        config = config_of(in_force(connection, settings, now()), settings)
    tier, right = config.tier, tier_of(account.equity_usd)
    if tier != right:
        raise BadConfiguration(
            f"{told} belongs to tier {right}, not {tier}",
            f"run: ops-pipeline config set tier={right} --reason ...",
        )
    return f"{told}, tier {tier}"


def _feeds(settings: Settings, now: Now) -> Iterator[Finding]:
    try:
        source = live_news(settings, _tickers(settings), now)
    except OperatorError as error:
        yield Finding("feeds", Health.FAILED, str(error), error.hint)
        return
    for outcome in source.fetch_news(now(), now(), {}).feeds:
        yield _feed(outcome)


def _tickers(settings: Settings) -> list[str]:
    """The tracked tickers, or those of the universe file while the database is out of reach."""
    try:
        with reachable(settings), opened(settings) as engine, engine.connect() as connection:
            return [ticker.symbol for ticker in universe(connection)]
    except (OperatorError, SQLAlchemyError):
        return list(universe_file(settings.universe_file).tracked)


def _feed(outcome: FeedOutcome) -> Finding:
    name = f"feed {outcome.feed}"
    if outcome.status is FeedStatus.FAILED:
        return Finding(name, Health.FAILED, outcome.reason, "look at its address, or leave it out")
    return Finding(name, Health.OK, f"{outcome.entries} entries, {outcome.bytes:,} bytes")


def _model(settings: Settings) -> str:
    classifier = classifier_of(settings)
    (score,) = classifier.classify(["Shares rise on strong results"])
    model = classifier.model
    return f"{model.name} ({model.backend}, {model.precision}): {score.label} of a good headline"


def _stream(settings: Settings, now: Now) -> str:
    """The process that follows the account: whether it is heard, current, and all adds up."""
    with reachable(settings), opened(settings) as engine, engine.connect() as connection:
        health = read_health(connection, ACCOUNT)
    if elsewhere := other_database(settings):
        told, ours = elsewhere
        raise BadConfiguration(f"it works with {told}, these settings with {ours}", RESTART)
    state, reason = stream_state(health, now())
    log_file = log_dir(settings) / f"{STREAM}.log"
    hint = f"{log_file} begins with its key, database and code; run: ops-pipeline up"
    if health is None or state != ACTIVE:
        why = f": {health.reason}" if health and health.reason else ""
        raise NotRunning(f"{reason}{why}", hint)
    if health.code_version != __version__:
        raise BadConfiguration(
            f"it runs code {health.code_version}, this is {__version__}",
            RESTART,
        )
    found = sums_verdict(health)
    if not found.is_normal:
        raise OperatorError(found.finding, "compare it with Alpaca's own page")
    return f"{health.holder} is heard, {found.finding}"


def _alerts(settings: Settings) -> str:
    """The channels of alerts: what each got last, what waits for it, and what it lost since."""
    names = [CONSOLE, *(channel.name for channel in alert_channels_of(settings))]
    alert_quiet_of(settings)
    with reachable(settings), opened(settings) as engine, engine.connect() as connection:
        states = {state.channel: state for state in channel_states(connection)}
    told = [_channel(name, states.get(name)) for name in names]
    down = [states[name] for name in names if name in states and states[name].last_error]
    if down:
        raise OperatorError(
            f"{'; '.join(told)}; {down[0].channel}: {down[0].last_error}",
            "run: ops-pipeline alerts test",
        )
    return "; ".join(told) + ("" if len(names) > 1 else "; set OPS_ALERT_URLS to be told elsewhere")


def _dead_man(settings: Settings) -> str:
    """The one outside who is asked after each look; asked by us, they would take us for it."""
    with reachable(settings), opened(settings) as engine, engine.connect() as connection:
        found = [alert for alert in open_alerts(connection) if alert.cause == dead_man.NAME]
    if found:
        raise OperatorError(found[0].finding, "correct OPS_DEAD_MAN_URL, then: ops-pipeline up")
    return "nothing was heard of it that is wrong"


def _channel(name: str, state: ChannelState | None) -> str:
    last, rest = f"{name} was never told of anything", ""
    if state and state.last_sent_at:
        last = f"{name} was told last at {both_zones(state.last_sent_at)}"
    if state and state.waiting:
        rest += f", {state.waiting} wait"
    if state and state.gave_up:
        rest += f", {state.gave_up} were given up"
    return last + rest


def _disk(settings: Settings) -> str:
    verdict = disk_verdict(free_bytes(settings))
    if verdict.level is Level.CRITICAL:
        raise OperatorError(verdict.finding, "make room, or set OPS_VAR_DIR")
    return verdict.finding


def _process(settings: Settings, name: str) -> str:
    table = table_of(settings)
    process = table.find(name)
    if process is None:
        raise OperatorError("does not run", f"run: ops-pipeline up --mode {settings.mode.value}")
    return f"runs, {table.memory_bytes(name) / 1e6:.0f} MB"
