"""The features in DuckDB: the same windows as window functions, over bars loaded into it."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.features.exchange import COLUMNS, TYPES
from benchmarks.measure.peers import INSTALL
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.features import TREND_TOLERANCE, VOLUME_SURGE_RATIO, WINDOWS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NEEDED = "duckdb"
MADE = "made"
FEATURES = f"""
create or replace table {MADE} as
with

returned as (
    select
        *,
        (high + low + close) / 3 as typical_price,
        case when lag(session_date) over by_minute = session_date
            then close / lag(close) over by_minute - 1 end as bar_return
    from bars
    window by_minute as (partition by ticker order by minute)
),

ranked as (
    select *, count(bar_return) over (partition by ticker order by minute) as return_rank
    from returned
),

-- A frame over the rank of returns, and not over rows, holds so many returns where one is missing.
windowed as (
    select
        ticker,
        minute as bar_at,
        session_date as bar_date,
        close,
        volume,
        count(*) over by_minute as bars_count,
        avg(close) over (by_minute rows $sma_short - 1 preceding) as sma20,
        avg(close) over (by_minute rows $sma_long - 1 preceding) as sma50,
        avg(volume) over (by_minute rows $volume_bars - 1 preceding) as volume_avg_20,
        case when return_rank >= $recent_returns then
            stddev_samp(bar_return) over (by_return range $recent_returns - 1 preceding)
        end as recent_vol,
        case when return_rank >= $baseline_min_returns then
            stddev_samp(bar_return) over (by_return range $baseline_returns - 1 preceding)
        end as baseline_vol,
        sum(typical_price * volume) over by_session as turnover,
        sum(volume) over by_session as traded
    from ranked
    window
        by_minute as (partition by ticker order by minute),
        by_return as (partition by ticker order by return_rank),
        by_session as (partition by ticker, session_date order by minute)
),

known as (
    select
        scores.*,
        minutes.minute,
        date_diff('microsecond', event_at, minute + interval 1 minute) / 1e6 as age
    from minutes
    inner join scores
        on minutes.minute > scores.event_at - interval 1 minute
        and minutes.minute <= scores.event_at + interval 59 minutes
        and minutes.cutoff >= scores.available_at
),

scored as (
    select
        ticker,
        minute,
        count(*) as news_count_60,
        string_agg(news_id, ',' order by event_at, news_id) as news_ids,
        avg(score) as sentiment_60,
        avg(abs(score)) as sentiment_strength_60,
        min(age) as news_age_seconds_60,
        count(*) filter (age <= 1800) as news_count_30,
        avg(score) filter (age <= 1800) as sentiment_30,
        avg(abs(score)) filter (age <= 1800) as sentiment_strength_30,
        min(age) filter (age <= 1800) as news_age_seconds_30,
        count(*) filter (age <= 1800 and is_confident) as confident_count_30,
        avg(score) filter (age <= 1800 and is_confident) as confident_sentiment_30,
        count(*) filter (age <= 1800 and is_confident and label = 'positive') as positive_count_30,
        count(*) filter (age <= 1800 and is_confident and label = 'negative') as negative_count_30,
        count(*) filter (age <= 1800 and is_confident and label = 'neutral') as neutral_count_30
    from known
    group by ticker, minute
),

spine as (select * from minutes cross join tickers),

joined as (
    select
        spine.ticker,
        spine.minute,
        spine.session_date,
        spine.cutoff as available_at,
        windowed.* exclude (ticker)
    from spine
    asof join windowed on spine.ticker = windowed.ticker and spine.minute >= windowed.bar_at
    where bars_count >= $min_bars and bar_at >= oldest_bar_at
),

finished as (
    select
        joined.*,
        recent_vol / nullif(baseline_vol, 0) as vol_ratio,
        close / sma20 - 1 as distance_sma20,
        close / sma50 - 1 as distance_sma50,
        case when abs(sma20 - sma50) > $trend_tolerance * sma50
            then cast(sign(sma20 - sma50) as integer) else 0 end as trend_state,
        coalesce(volume / nullif(volume_avg_20, 0), 0) as volume_ratio,
        volume_ratio > $surge as volume_surge,
        case when bar_date = session_date and traded > 0
            then turnover / traded end as session_vwap,
        scored.* exclude (ticker, minute, news_ids) replace (
            coalesce(news_count_30, 0) as news_count_30,
            coalesce(news_count_60, 0) as news_count_60,
            coalesce(confident_count_30, 0) as confident_count_30,
            coalesce(positive_count_30, 0) as positive_count_30,
            coalesce(negative_count_30, 0) as negative_count_30,
            coalesce(neutral_count_30, 0) as neutral_count_30
        ),
        '{{' || coalesce(news_ids, '') || '}}' as news_ids
    from joined
    left join scored on joined.ticker = scored.ticker and joined.minute = scored.minute
)

select {", ".join(COLUMNS)} from finished
"""  # noqa: S608
_OF_THE_WINDOWS = (
    "min_bars",
    "sma_short",
    "sma_long",
    "volume_bars",
    "recent_returns",
    "baseline_returns",
    "baseline_min_returns",
)


def need_duckdb() -> None:
    """Refuse to begin without DuckDB.

    Raises:
        BadConfiguration: it is absent; the hint says how to get it.
    """
    if find_spec(NEEDED) is None:
        raise BadConfiguration(f"{NEEDED} must be installed to be measured", f"run: {INSTALL}")


def connect() -> "DuckDBPyConnection":
    """A database in memory, with as many threads as the machine has processors."""
    import duckdb

    return duckdb.connect()


def load(connection: "DuckDBPyConnection", paths: Mapping[str, Path]) -> None:
    """The files of `exchange.read` as tables."""
    for name, path in paths.items():
        connection.execute(f"drop table if exists {name}")
        connection.read_csv(str(path), header=True, columns=dict(TYPES[name])).create(name)


def compute(connection: "DuckDBPyConnection") -> None:
    """One row for each ticker and minute with enough bars, into a table.

    It looks back in the order of minutes: right as long as no bar came after its own minute's
    cut-off, which the dbt models do not assume.
    """
    windows = {name: WINDOWS[name] for name in _OF_THE_WINDOWS}
    limits = {"surge": VOLUME_SURGE_RATIO, "trend_tolerance": TREND_TOLERANCE}
    connection.execute(FEATURES, {**windows, **limits})


def save(connection: "DuckDBPyConnection", path: Path) -> None:
    """Write the rows as `exchange.write` reads them."""
    connection.table(MADE).write_csv(str(path), header=True)
