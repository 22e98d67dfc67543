"""The rows that dbt makes, as the rules read them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.values import FeatureRow
from ops_pipeline.storage.queries import query


def features_between(
    connection: Connection, start: datetime, end: datetime
) -> dict[datetime, list[FeatureRow]]:
    """What each minute in [start, end) may know of its features, ordered by ticker."""
    rows = connection.execute(
        query("features", "features_between"), {"start": start, "end": end}
    ).mappings()
    found: dict[datetime, list[FeatureRow]] = {}
    for row in rows:
        times = {name: row[name].astimezone(UTC) for name in ("minute", "bar_at")}
        feature = FeatureRow(**{**row, **times})
        found.setdefault(feature.minute, []).append(feature)
    return found


def missing_between(connection: Connection, start: datetime, end: datetime) -> dict[str, int]:
    """Why tickers have no features in [start, end): how often each reason held."""
    rows = connection.execute(query("features", "missing_between"), {"start": start, "end": end})
    return {row[0]: row[1] for row in rows}


def newest_feature_bars(
    connection: Connection, tickers: Sequence[str], now: datetime
) -> dict[str, datetime]:
    """The bar that the newest features of each ticker stand on, as known at an instant."""
    rows = connection.execute(
        query("features", "newest_feature_bars"), {"tickers": list(tickers), "now": now}
    )
    return {row[0]: row[1].astimezone(UTC) for row in rows}
