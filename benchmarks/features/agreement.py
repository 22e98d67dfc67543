"""Whether a peer's rows are ours, value by value: a measure of other work would be none."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sqlalchemy import Connection, text

from ops_pipeline.domain.features import VOLUME_SURGE_RATIO

# Of a number's size, or of 1 where it is smaller: sums of floats depend on their order.
TOLERANCE = 1e-9
KEY = ["ticker", "minute"]
EXACT = (
    "session_date",
    "bar_at",
    "volume",
    "news_count_30",
    "news_count_60",
    "confident_count_30",
    "positive_count_30",
    "negative_count_30",
    "neutral_count_30",
    "available_at",
    "news_ids",
)
# Far below 1, so that theirs is measured by themselves.
SMALL = ("recent_vol", "baseline_vol")
CLOSE = (
    *SMALL,
    "close",
    "sma20",
    "sma50",
    "vol_ratio",
    "distance_sma20",
    "distance_sma50",
    "volume_avg_20",
    "volume_ratio",
    "session_vwap",
    "sentiment_30",
    "sentiment_60",
    "sentiment_strength_30",
    "sentiment_strength_60",
    "news_age_seconds_30",
    "news_age_seconds_60",
    "confident_sentiment_30",
)


@dataclass(frozen=True)
class Agreement:
    """How a peer's rows compare with ours; `largest` is relative, and stands in `column`.

    `undecided` flags hang on two numbers that are equal within the tolerance, and may differ.
    """

    rows: int
    missing: int
    added: int
    unequal: dict[str, int]
    undecided: int
    largest: float
    column: str

    @property
    def is_equal(self) -> bool:
        """Whether both have the same rows, and the same values within the tolerance."""
        return not (self.missing or self.added or self.unequal)


def rows_of(connection: Connection, table: str) -> pd.DataFrame:
    """All rows of a table that is like features_1m, by ticker and minute."""
    statement = text(f"select * from features.{table} order by ticker, minute")  # noqa: S608
    return pd.read_sql(statement, connection).set_index(KEY)


def agreement(ours: pd.DataFrame, theirs: pd.DataFrame) -> Agreement:
    """Compare the rows of a peer with ours; both are as `rows_of` gives them."""
    missing, added = ours.index.difference(theirs.index), theirs.index.difference(ours.index)
    both = ours.index.intersection(theirs.index)
    left, right = ours.loc[both], theirs.loc[both]
    unequal = {name: int((left[name] != right[name]).sum()) for name in EXACT}
    undecided = 0
    for name, is_close in _undecided(left).items():
        differs = left[name] != right[name]
        unequal[name] = int((differs & ~is_close).sum())
        undecided += int((differs & is_close).sum())
    distances = {name: _distances(left, right, name) for name in CLOSE}
    unequal |= {name: int((found > TOLERANCE).sum()) for name, found in distances.items()}
    largest = {
        name: float(found[np.isfinite(found)].max(initial=0.0)) for name, found in distances.items()
    }
    column = max(largest, key=largest.__getitem__)
    return Agreement(
        rows=len(both),
        missing=len(missing),
        added=len(added),
        unequal={name: count for name, count in unequal.items() if count},
        undecided=undecided,
        largest=largest[column],
        column=column,
    )


def _undecided(rows: pd.DataFrame) -> dict[str, "pd.Series[bool]"]:
    """Where a flag hangs on a last digit."""
    trend = (rows["sma20"] - rows["sma50"]).abs() <= TOLERANCE * rows["sma50"]
    surge = (rows["volume_ratio"] - VOLUME_SURGE_RATIO).abs() <= TOLERANCE * VOLUME_SURGE_RATIO
    return {"trend_state": trend, "volume_surge": surge}


def _distances(left: pd.DataFrame, right: pd.DataFrame, name: str) -> np.ndarray:
    """Of each row; infinite where only one of the two has a number."""
    ours, theirs = (rows[name].to_numpy("float64", na_value=np.nan) for rows in (left, right))
    size = np.abs(ours) if name in SMALL else np.maximum(np.abs(ours), 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(ours == theirs, 0.0, np.abs(theirs - ours) / size)
    lacks = np.isnan(ours) != np.isnan(theirs)
    found[np.isnan(ours) & np.isnan(theirs)] = 0.0
    found[lacks] = np.inf
    return found
