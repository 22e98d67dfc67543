"""Copies what one session stands on from one database to another."""

from typing import LiteralString

from sqlalchemy import Engine

from ops_pipeline.domain.features import WINDOWS
from ops_pipeline.domain.session import Session

# Each table with what belongs to a session; a table comes after those that it refers to.
_SELECTS: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("universe", "select * from universe"),
    (
        "minute_cutoffs",
        "select * from minute_cutoffs where minute >= %(opens)s and minute < %(closes)s",
    ),
    (
        "stage_minutes",
        "select * from stage_minutes where minute >= %(opens)s and minute < %(closes)s",
    ),
    (
        "bars_1m",
        """
        select * from bars_1m where minute >= %(opens)s and minute < %(closes)s
        union all
        select before.* from (
            select ticker from universe
            union
            select ticker from features.features_1m
            where minute >= %(opens)s and minute < %(closes)s
        ) as tracked cross join lateral (
            select * from bars_1m
            where ticker = tracked.ticker and minute < %(opens)s
            order by minute desc limit %(lookback)s
        ) as before""",
    ),
    (
        "bar_revisions",
        "select * from bar_revisions where minute >= %(opens)s and minute < %(closes)s",
    ),
    ("news_items", "select * from news_items where {recent}"),
    (
        "news_tickers",
        """
        select * from news_tickers
        where news_id in (select news_id from news_items where {recent})""",
    ),
    (
        "news_sentiments",
        """
        select * from news_sentiments
        where text_hash in (select text_hash from news_items where {recent})""",
    ),
    (
        "features.features_1m",
        "select * from features.features_1m where minute >= %(opens)s and minute < %(closes)s",
    ),
    (
        "watchlist_entries",
        "select * from watchlist_entries where minute >= %(opens)s and minute < %(closes)s",
    ),
    ("signals", "select * from signals where minute >= %(opens)s and minute < %(closes)s"),
)
# Features look back over an hour of news. A text is scored when it is first known: the stories that
# had it before come along, however old they are.
_RECENT: LiteralString = """
    event_at < %(closes)s and text_hash in (
        select told.text_hash from news_items as told
        where told.event_at >= %(opens)s - interval '1 hour' and told.event_at < %(closes)s
    )"""


def copy_session(source: Engine, target: Engine, session: Session) -> None:
    """Copy a session's rows and those before it that its features look back at.

    The target is migrated and empty. What the dispatcher made of the session stays behind.
    """
    parameters = {
        "opens": session.opens_at,
        "closes": session.closes_at,
        "lookback": WINDOWS["lookback_bars"],
    }
    with source.connect() as reading, target.begin() as writing:
        reader = reading.connection.driver_connection
        writer = writing.connection.driver_connection
        assert reader is not None  # noqa: S101 - both engines are psycopg's
        assert writer is not None  # noqa: S101
        with reader.cursor() as out_of, writer.cursor() as into:
            for table, select in _SELECTS:
                statement = f"copy ({select.format(recent=_RECENT)}) to stdout"
                with (
                    out_of.copy(statement, parameters) as rows,
                    into.copy(f"copy {table} from stdin") as copied,
                ):
                    for block in rows:
                        copied.write(block)
