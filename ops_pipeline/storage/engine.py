"""Connections to the pipeline's database."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from ops_pipeline.domain.errors import NotRunning, TimedOut, Unsafe
from ops_pipeline.settings import Server, Settings

CONNECT_TIMEOUT_SECONDS = 5
IDLE_SECONDS = 60.0
LOCK_SECONDS = 30.0
# Ingest takes it shared before it stamps a row; the cut-off is read under the exclusive one.
KNOWLEDGE_LOCK = 7_310_001
# Held by the one that steps a replay's dispatcher through its minutes.
DRIVER_LOCK = 7_310_003
# Held by a run for as long as it works at a stage; with it goes the stage.
STAGE_LOCK = 7_310_004
# How long a run waits for its turn, how long one that is frozen keeps it, and how often one that
# works shows that it does.
TURN_WAIT_SECONDS, TURN_SECONDS, ALIVE_SECONDS = 120, 600, 30


class TurnTaken(TimedOut):
    """Another run has been at a stage for as long as this one may wait."""


def server_of(settings: Settings) -> Server:
    """The server of these settings.

    Raises:
        NotRunning: there is none yet.
    """
    if settings.server is None:
        raise NotRunning("there is no database yet", "run: ops-pipeline init")
    return settings.server


def open_engine(
    settings: Settings,
    database: str | None = None,
    *,
    as_reader: bool = False,
    idle_seconds: float = IDLE_SECONDS,
    bound_seconds: float | None = None,
) -> Engine:
    """An engine on one of this installation's databases, the pipeline's own by default.

    A transaction that does nothing for `idle_seconds` is ended by the server: what a frozen process
    has locked is free again. One that has waited for the server for `bound_seconds` fails with
    OperationalError, also where the server is frozen; None waits as long as it takes.
    """
    server = server_of(settings)
    url = URL.create(
        "postgresql+psycopg",
        username=settings.reader if as_reader else server.user,
        password=settings.reader_password if as_reader else server.password,
        host=server.host,
        port=server.port,
        database=database or settings.pipeline_database,
    )
    # A server that is alive ends what takes too long before we give it up, and says what it was.
    lock, statement = LOCK_SECONDS, 0.0
    if bound_seconds:
        lock, statement = min(LOCK_SECONDS, bound_seconds / 4), bound_seconds / 2
    options = (
        f"-c timezone=UTC -c lock_timeout={round(lock * 1_000)}"
        f" -c statement_timeout={round(statement * 1_000)}"
        f" -c idle_in_transaction_session_timeout={round(idle_seconds * 1_000)}"
    )
    connecting = min(CONNECT_TIMEOUT_SECONDS, math.ceil(bound_seconds or CONNECT_TIMEOUT_SECONDS))
    made = create_engine(
        url,
        pool_size=2,
        max_overflow=8,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": connecting,
            "options": options,
            # A network that swallows packets is noticed in half a minute, not in a quarter hour.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
    )
    if bound_seconds:
        _bind(made, bound_seconds)
    return made


class _Bounded(psycopg.Connection[Any]):
    """A connection whose transactions wait for the server for so long in all, and no longer.

    A server that is frozen keeps no promise about time-outs, and its machine answers the network's
    own questions for it: only we can give it up.
    """

    bound_seconds: float
    _ends_at = 0.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            self._ends_at = monotonic() + self.bound_seconds
        left = max(self._ends_at - monotonic(), 0.0)
        try:
            return super().wait(gen, interval, left if timeout is None else min(timeout, left))
        except psycopg.OperationalError as error:
            if monotonic() < self._ends_at:
                raise
            # Half of an answer may still come: nothing else can be asked on it.
            self.pgconn.finish()
            told = f"it does not answer within {self.bound_seconds:g} s"
            raise psycopg.OperationalError(told) from error


def _bind(engine: Engine, bound_seconds: float) -> None:
    """Let an engine's connections be bounded ones."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, known: Any) -> _Bounded:
        made = _Bounded.connect(*args, **known)
        made.bound_seconds = bound_seconds
        return made


def wait_for_disk(connection: Connection) -> None:
    """Have this transaction on disk when it is committed, also in a replay, which does without."""
    connection.execute(text("set local synchronous_commit = on"))


@contextmanager
def opened(
    settings: Settings, database: str | None = None, *, bound_seconds: float | None = None
) -> Iterator[Engine]:
    """An engine on one database, by default the pipeline's, for as long as it is needed."""
    engine = open_engine(settings, database, bound_seconds=bound_seconds)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reachable(settings: Settings) -> Iterator[None]:
    """Turn a refused connection into one line that says what to try."""
    try:
        yield
    except (OperationalError, psycopg.OperationalError) as error:
        where = f"{settings.server.host}:{settings.server.port}" if settings.server else "nowhere"
        cause = error.orig if isinstance(error, OperationalError) else error
        first_line = str(cause).strip().splitlines()[0]
        hint = (
            "run: ops-pipeline up"
            if settings.server and settings.server.is_embedded
            else ("check DATABASE_URL, and that the server runs")
        )
        if first_line.endswith("does not exist"):
            hint = f"run: ops-pipeline init --mode {settings.mode.value}"
        raise NotRunning(f"PostgreSQL at {where} does not answer: {first_line}", hint) from error


def lock_knowledge(connection: Connection, *, exclusive: bool) -> None:
    """Hold the knowledge lock until the transaction ends."""
    shared = "" if exclusive else "_shared"
    connection.execute(text(f"select pg_advisory_xact_lock{shared}(:key)"), {"key": KNOWLEDGE_LOCK})


@contextmanager
def turn_at(engine: Engine, stage: str, wait_seconds: int | None = None) -> Iterator[None]:
    """Be the only run at a stage, however long that takes; the others wait.

    The server gives the turn on when this process dies, and takes it from one that is frozen.

    Raises:
        TurnTaken: another run has it for longer than that, by default TURN_WAIT_SECONDS.
    """
    wait_seconds = TURN_WAIT_SECONDS if wait_seconds is None else wait_seconds
    with engine.connect() as connection, connection.begin():
        connection.execute(
            text(
                f"set local lock_timeout = '{wait_seconds}s';"
                f"set local idle_in_transaction_session_timeout = '{TURN_SECONDS}s'"
            )
        )
        try:
            connection.execute(
                text("select pg_advisory_xact_lock(:key, hashtext(:stage))"),
                {"key": STAGE_LOCK, "stage": stage},
            )
        except OperationalError as error:
            raise TurnTaken(
                f"another run has been at {stage} for {wait_seconds} s",
                "look at the run that is at work in the UI",
            ) from error
        with _shown_alive(connection):
            yield


@contextmanager
def _shown_alive(connection: Connection) -> Iterator[None]:
    """Let the server hear of this process while it works; one that is frozen is silent."""
    session = connection.connection.driver_connection
    assert session is not None  # noqa: S101 - this engine is psycopg's
    over = Event()

    def speak() -> None:
        while not over.wait(ALIVE_SECONDS):
            try:
                session.execute("select 1")
            except psycopg.Error:
                # The turn is lost; the end of the transaction tells.
                return

    speaking = Thread(target=speak, daemon=True)
    speaking.start()
    try:
        yield
    finally:
        over.set()
        speaking.join()


@contextmanager
def sole_driver(engine: Engine) -> Iterator[None]:
    """Be the only one who plays this database; the server lets go when the connection ends.

    Raises:
        Unsafe: another one does.
    """
    key = {"key": DRIVER_LOCK}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Long enough for the server to see that a driver before us has died.
        connection.execute(text("set lock_timeout = '5s'"))
        try:
            connection.execute(text("select pg_advisory_lock(:key)"), key)
        except OperationalError as error:
            raise Unsafe("another replay is at work here", "wait until it is done") from error
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:key)"), key)
            connection.execute(text("reset lock_timeout"))
