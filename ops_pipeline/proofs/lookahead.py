"""Whether a decision changes when the future is taken away, or replaced by an absurd one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, Engine

from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.values import Model, Ticker
from ops_pipeline.proofs.parity import Difference, compare, digest_minutes
from ops_pipeline.storage import lookahead as storage
from ops_pipeline.storage.fingerprint import TABLES, Row, rows_of
from ops_pipeline.storage.knowledge import Cutoff, cutoffs_between
from ops_pipeline.storage.universe import replace_universe

DECIDED = ("features.features_1m", "watchlist_entries", "signals")
SAMPLES = 32
STORED, REMOVED, POISONED = "stored", "future removed", "future poisoned"
Rows = dict[str, list[Row]]


@dataclass(frozen=True)
class Sample:
    """One minute: what was stored, and what came out without and with a future, as SHA-256."""

    minute: datetime
    stored: str
    removed: str
    poisoned: str

    @property
    def is_equal(self) -> bool:
        """Whether all three are the same."""
        return self.stored == self.removed == self.poisoned


@dataclass(frozen=True)
class Lookahead:
    """What the proof of one session came to.

    `early` are rows known before they could be; `left_out` counts minutes that another model's
    scores were read for, so that they cannot be decided again.
    """

    day: date
    samples: list[Sample]
    differences: list[Difference]
    early: list[str]
    left_out: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing looks ahead."""
        return not self.early and all(sample.is_equal for sample in self.samples)


def sample_minutes(session: Session, count: int = SAMPLES) -> list[datetime]:
    """Minutes all over a session, its first and its last among them, in order."""
    minutes = session.minutes()
    steps = min(count, len(minutes)) - 1
    return [minutes[round(step * (len(minutes) - 1) / steps)] for step in range(steps + 1)]


def prove(
    engine: Engine,
    session: Session,
    minutes: Sequence[datetime],
    model: Model,
    recompute: Callable[[datetime], None],
    on_minute: Callable[[datetime], None] = lambda _: None,
) -> Lookahead:
    """Decide minutes of a session again, without and with an absurd future.

    Args:
        engine: a scratch that holds the session as it was stored; it is emptied on the way.
        session: the session.
        minutes: which of its minutes; those not decided, only after later ones, or under another
            model's scores, are left out. Each is decided for the tickers that it was decided for.
        model: whose scores the features read.
        recompute: decides one minute again: features, watchlist and signals.
        on_minute: told of each minute that is done.
    """
    with engine.connect() as connection:
        early = storage.early(connection)
        cutoffs = cutoffs_between(connection, session.opens_at, session.closes_at)
        left_out = storage.scored_otherwise(connection, minutes, model)
        stored = _decisions(connection, minutes)
    samples: list[Sample] = []
    differences: list[Difference] = []
    wanted = set(minutes) - left_out
    # Backwards, so that what one minute forgets no other one needs.
    for cutoff in _in_time([cutoff for cutoff in cutoffs if cutoff.minute in wanted]):
        found = {STORED: stored[cutoff.minute]}
        for future in (REMOVED, POISONED):
            _set_future(engine, cutoff, future, model, _tickers(found[STORED]))
            recompute(cutoff.minute)
            with engine.connect() as connection:
                found[future] = _decisions(connection, [cutoff.minute])[cutoff.minute]
        samples.append(Sample(cutoff.minute, *(_digest(rows) for rows in found.values())))
        for table in DECIDED:
            one_table = {name: rows[table] for name, rows in found.items()}
            differences += compare(table, [cutoff.minute], one_table)[1]
        on_minute(cutoff.minute)
    return Lookahead(session.day, samples[::-1], differences, early, len(left_out))


def _in_time(cutoffs: Sequence[Cutoff]) -> list[Cutoff]:
    """Newest first; a minute that was filled in after a later one is left out.

    It knew rows that the later one may not know, and those are forgotten by then.
    """
    kept: list[Cutoff] = []
    for cutoff in reversed(cutoffs):
        if not kept or cutoff.cutoff <= kept[-1].cutoff:
            kept.append(cutoff)
    return kept


def _set_future(
    engine: Engine, cutoff: Cutoff, future: str, model: Model, tickers: Sequence[Ticker]
) -> None:
    with engine.begin() as connection:
        replace_universe(connection, tickers)
        storage.forget(connection, cutoff.minute, cutoff.cutoff)
        if future == POISONED:
            storage.poison(connection, cutoff.minute, cutoff.cutoff, cutoff.session_date, model)


def _tickers(rows: Rows) -> list[Ticker]:
    """Those that a minute was decided for; what is tracked may have changed since."""
    return [Ticker(symbol) for symbol in sorted({row.key for one in rows.values() for row in one})]


def _decisions(connection: Connection, minutes: Sequence[datetime]) -> dict[datetime, Rows]:
    found: dict[datetime, Rows] = {minute: {name: [] for name in DECIDED} for minute in minutes}
    for table in TABLES:
        if table.name in DECIDED:
            between = min(minutes), max(minutes) + MINUTE
            # What was decided late says so; too early is told by itself.
            for row in rows_of(connection, table, between, without=["available_at"]):
                if row.minute in found:
                    found[row.minute][table.name].append(row)
    return found


def _digest(rows: Rows) -> str:
    return "".join(digest_minutes([row for found in rows.values() for row in found]).values())
