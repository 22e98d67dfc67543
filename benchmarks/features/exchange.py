"""What every peer reads from PostgreSQL and writes back to it, by COPY: the fastest way there is.

Times are written without a zone, in UTC: neither peer then has to convert any.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ops_pipeline.domain.features import WINDOWS
from ops_pipeline.domain.sentiment import CONFIDENT_PROBABILITY
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.values import Model
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import server_of

OURS = "features_1m"
# Of features_1m, in the order in which peers write them; when a row was written is the server's.
COLUMNS = (
    "ticker",
    "minute",
    "session_date",
    "bar_at",
    "close",
    "sma20",
    "sma50",
    "recent_vol",
    "baseline_vol",
    "vol_ratio",
    "distance_sma20",
    "distance_sma50",
    "trend_state",
    "volume",
    "volume_avg_20",
    "volume_ratio",
    "volume_surge",
    "session_vwap",
    "news_count_30",
    "news_count_60",
    "sentiment_30",
    "sentiment_60",
    "sentiment_strength_30",
    "sentiment_strength_60",
    "news_age_seconds_30",
    "news_age_seconds_60",
    "confident_count_30",
    "confident_sentiment_30",
    "positive_count_30",
    "negative_count_30",
    "neutral_count_30",
    "available_at",
    "news_ids",
)
# What each of them is read as; both peers know these names.
TYPES: Mapping[str, Mapping[str, str]] = {
    "tickers": {"ticker": "VARCHAR"},
    "minutes": {
        "minute": "TIMESTAMP",
        "session_date": "DATE",
        "cutoff": "TIMESTAMP",
        "oldest_bar_at": "TIMESTAMP",
    },
    "bars": {
        "ticker": "VARCHAR",
        "minute": "TIMESTAMP",
        "session_date": "DATE",
        "high": "DOUBLE",
        "low": "DOUBLE",
        "close": "DOUBLE",
        "volume": "BIGINT",
    },
    "scores": {
        "ticker": "VARCHAR",
        "news_id": "VARCHAR",
        "event_at": "TIMESTAMP",
        "available_at": "TIMESTAMP",
        "label": "VARCHAR",
        "score": "DOUBLE",
        "is_confident": "BOOLEAN",
    },
}
_SELECTS: dict[str, LiteralString] = {
    "tickers": "select ticker from universe",
    "minutes": """
        select minute at time zone 'UTC' as minute, session_date,
            cutoff at time zone 'UTC' as cutoff,
            coalesce(oldest_bar_at, '1970-01-01') at time zone 'UTC' as oldest_bar_at
        from minute_cutoffs where minute >= %(start)s and minute < %(end)s""",
    # The minutes' own bars, and before them as many of each ticker as the first one looks back at.
    # The first minute's window bounds them all: later windows are full of the minutes' own bars.
    "bars": """
        select bars.ticker, bars.minute at time zone 'UTC' as minute, bars.session_date, bars.high,
            bars.low, bars.close, bars.volume
        from universe cross join lateral (
            select * from bars_1m
            where ticker = universe.ticker and minute >= %(start)s and minute < %(end)s
            union all
            (
                select * from bars_1m
                where ticker = universe.ticker and minute < %(start)s
                    and minute >= coalesce(
                        (select window_starts_at from minute_cutoffs where minute = %(start)s),
                        '-infinity'
                    )
                order by minute desc limit %(look_back)s
            )
        ) as bars""",
    "scores": """
        select links.ticker, items.news_id, items.event_at at time zone 'UTC' as event_at,
            greatest(items.available_at, links.available_at, scores.available_at)
            at time zone 'UTC' as available_at,
            scores.label, scores.score, scores.probability >= %(confident)s as is_confident
        from news_items as items
        inner join news_tickers as links using (news_id)
        inner join universe using (ticker)
        inner join news_sentiments as scores using (text_hash)
        where scores.model = %(model)s and scores.revision = %(revision)s
            and items.event_at >= %(start)s - interval '1 hour' and items.event_at < %(end)s""",
}


@dataclass(frozen=True)
class Window:
    """The session minutes from the first to the last one, both included, and whose scores count."""

    session: Session
    first: datetime
    last: datetime
    model: Model

    @property
    def end(self) -> datetime:
        """Where the last minute ends."""
        return self.last + MINUTE

    @property
    def look_back(self) -> int:
        """How many bars before the first minute it may need: 180, or all since its open."""
        since_open = (self.first - self.session.opens_at) // MINUTE
        return max(WINDOWS["lookback_bars"], since_open)

    @property
    def parameters(self) -> dict[str, object]:
        """What the statements ask for."""
        return {
            "start": self.first,
            "end": self.end,
            "look_back": self.look_back,
            "confident": CONFIDENT_PROBABILITY,
            "model": self.model.name,
            "revision": self.model.revision,
        }


def connect(settings: Settings) -> psycopg.Connection:
    """A connection to the pipeline's database, in UTC."""
    server = server_of(settings)
    return psycopg.connect(
        make_conninfo(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=settings.pipeline_database,
            options="-c timezone=UTC",
        )
    )


def create_target(connection: psycopg.Connection, table: str) -> None:
    """Make a table of the schema features that is like features_1m, its indexes included."""
    name = sql.Identifier("features", table)
    create = sql.SQL("create table {} (like features.features_1m including all)").format(name)
    stamp = sql.SQL("alter table {} alter written_at set default clock_timestamp()").format(name)
    connection.execute(create)
    connection.execute(stamp)
    connection.commit()


def read(connection: psycopg.Connection, window: Window, folder: Path) -> dict[str, Path]:
    """Copy what the window's features are made of into files. Returns their paths by name."""
    paths = {name: folder / f"{name}.csv" for name in _SELECTS}
    with connection.transaction(), connection.cursor() as cursor:
        for name, select in _SELECTS.items():
            statement = f"copy ({select}) to stdout (format csv, header)"
            with (
                cursor.copy(statement, window.parameters) as rows,
                paths[name].open("wb") as file,
            ):
                for block in rows:
                    file.write(block)
    return paths


def write(connection: psycopg.Connection, table: str, window: Window, path: Path) -> None:
    """Put a file's rows in the place of the window's rows, in one transaction, as dbt does."""
    name = sql.Identifier("features", table)
    delete = sql.SQL("delete from {} where minute >= %s and minute < %s").format(name)
    copy = sql.SQL("copy {} ({}) from stdin (format csv, header)").format(
        name, sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(delete, [window.first, window.end])
        with cursor.copy(copy) as into, path.open("rb") as file:
            while block := file.read(1 << 20):
                into.write(block)
