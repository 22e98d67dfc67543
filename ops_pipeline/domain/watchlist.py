"""Which tickers are worth watching: a score, and a pick with hysteresis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from ops_pipeline.domain.thresholds import WatchlistRules
from ops_pipeline.domain.values import FeatureRow, WatchlistEntry

DUE_EVERY_MINUTES = 5
NONE_LATE: Mapping[datetime, datetime] = MappingProxyType({})


@dataclass(frozen=True)
class Decision:
    """Who is in by one decision and since when, and from when on that could be known."""

    minute: datetime
    available_at: datetime
    members: Mapping[str, datetime]


def is_due(minute: datetime, opens_at: datetime) -> bool:
    """Whether the watchlist decides in this minute of the session: the first and each fifth."""
    return int((minute - opens_at).total_seconds() // 60) % DUE_EVERY_MINUTES == 0


def components(row: FeatureRow, rules: WatchlistRules) -> dict[str, float]:
    """The four parts of the score, each between 0 and 1; what is unknown adds nothing."""
    distance = math.nan if row.distance_sma20 is None else abs(row.distance_sma20)
    return {
        "sentiment_pressure": _sentiment_pressure(row, rules),
        "setup_quality": _unit(1 - distance / rules.setup_distance),
        "volatility": _unit(
            ((row.vol_ratio or 0.0) - rules.quiet_vol_ratio) / rules.vol_ratio_span
        ),
        "trend_alignment": _trend_alignment(row, rules),
    }


def score(parts: Mapping[str, float], rules: WatchlistRules) -> float:
    """The weighted sum of the four parts."""
    return (
        rules.sentiment_weight * parts["sentiment_pressure"]
        + rules.setup_weight * parts["setup_quality"]
        + rules.volatility_weight * parts["volatility"]
        + rules.trend_weight * parts["trend_alignment"]
    )


def _sentiment_pressure(row: FeatureRow, rules: WatchlistRules) -> float:
    # An age of 0 means unknown, as in the parity vectors; a minute ends after its news.
    age = row.news_age_seconds_60 or float(rules.news_window_seconds)
    strength = _unit(abs(row.sentiment_60 or 0.0))
    count = _unit(row.news_count_60 / rules.full_news_count)
    recency = _unit(1 - age / rules.news_window_seconds)
    return (
        rules.pressure_strength_weight * strength
        + rules.pressure_count_weight * count
        + rules.pressure_recency_weight * recency
    )


def _trend_alignment(row: FeatureRow, rules: WatchlistRules) -> float:
    sentiment = row.sentiment_60 or 0.0
    direction = (sentiment > rules.neutral_sentiment) - (sentiment < -rules.neutral_sentiment)
    if not row.trend_state or not direction:
        return 0.5
    return 1.0 if row.trend_state == direction else 0.0


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


@dataclass(frozen=True)
class _Ranked:
    row: FeatureRow
    rank: int
    score: float
    parts: dict[str, float]


def pick(
    rows: Sequence[FeatureRow],
    members: Mapping[str, datetime],
    minute: datetime,
    rules: WatchlistRules,
) -> list[WatchlistEntry]:
    """One decision over all tickers that have features.

    Args:
        rows: the feature row of each ticker at this minute.
        members: tickers that are in now, with the minute at which they entered.
        minute: the minute that decides.
        rules: scores and sizes.

    Returns:
        One entry for each row, best first. A member whose features are missing is out.
    """
    ranked = _ranked(rows, rules)
    reasons: dict[str, str] = {}
    for item in ranked:
        reasons[item.row.ticker] = _verdict(item, members.get(item.row.ticker), minute, rules)
    _limit(ranked, reasons, rules)
    _fill_up(ranked, reasons, rules)
    return [_entry(item, reasons[item.row.ticker], members, minute) for item in ranked]


def _ranked(rows: Sequence[FeatureRow], rules: WatchlistRules) -> list[_Ranked]:
    scored = [(row, components(row, rules)) for row in rows]
    scored.sort(key=lambda pair: (-score(pair[1], rules), pair[0].ticker))
    return [
        _Ranked(row, rank, score(parts, rules), parts)
        for rank, (row, parts) in enumerate(scored, start=1)
    ]


def _verdict(
    item: _Ranked, entered_at: datetime | None, minute: datetime, rules: WatchlistRules
) -> str:
    if item.score >= rules.enter_score:
        return "in: score"
    if entered_at is None:
        return "out: score"
    if item.score >= rules.leave_score:
        return "in: kept"
    held = (minute - entered_at).total_seconds() / 60
    return "in: retained" if held < rules.retention_minutes else "out: score"


def _limit(ranked: Sequence[_Ranked], reasons: dict[str, str], rules: WatchlistRules) -> None:
    inside = [item.row.ticker for item in ranked if reasons[item.row.ticker].startswith("in")]
    for ticker in inside[rules.max_size :]:
        reasons[ticker] = "out: full"


def _fill_up(ranked: Sequence[_Ranked], reasons: dict[str, str], rules: WatchlistRules) -> None:
    inside = sum(reason.startswith("in") for reason in reasons.values())
    wanted = min(rules.min_size, rules.max_size) - inside
    for item in ranked:
        if wanted <= 0:
            return
        if reasons[item.row.ticker] == "out: score":
            reasons[item.row.ticker] = "in: filled up"
            wanted -= 1


def _entry(
    item: _Ranked, reason: str, members: Mapping[str, datetime], minute: datetime
) -> WatchlistEntry:
    ticker, inside = item.row.ticker, reason.startswith("in")
    entered_at = members.get(ticker, minute) if inside else None
    return WatchlistEntry(
        ticker, minute, item.score, item.rank, inside, reason, entered_at, item.parts
    )


def members_known(
    decisions: Sequence[Decision], minute: datetime, cutoff: datetime
) -> Mapping[str, datetime]:
    """Who is in as far as a minute may know, and since when; nobody where nothing is known.

    Args:
        decisions: in the order of their minutes.
        minute: later decisions do not count.
        cutoff: what became known after it does not count either.
    """
    for decision in reversed(decisions):
        if decision.minute <= minute and decision.available_at <= cutoff:
            return decision.members
    return {}


def fold(
    cutoffs: Mapping[datetime, datetime],
    opens_at: datetime,
    rows: Mapping[datetime, Sequence[FeatureRow]],
    decisions: Sequence[Decision],
    rules: WatchlistRules,
    late: Mapping[datetime, datetime] = NONE_LATE,
) -> dict[datetime, list[WatchlistEntry]]:
    """Decide minute after minute of one session; only due minutes have entries.

    Args:
        cutoffs: session minutes in order, each with the instant up to which it may know.
        opens_at: the session's first minute.
        rows: feature rows by minute.
        decisions: those before the first of these minutes, in order; none at the open.
        rules: scores and sizes.
        late: from when on a decision could be known that came after its cut-off.
    """
    known = list(decisions)
    decided: dict[datetime, list[WatchlistEntry]] = {}
    for minute, cutoff in cutoffs.items():
        if not is_due(minute, opens_at):
            continue
        entries = pick(rows.get(minute, ()), members_known(known, minute, cutoff), minute, rules)
        decided[minute] = entries
        # Without entries nothing is stored either, and the decision before stays in force.
        if entries:
            known.append(Decision(minute, late.get(minute, cutoff), _members(entries)))
    return decided


def _members(entries: Sequence[WatchlistEntry]) -> dict[str, datetime]:
    return {entry.ticker: entry.entered_at for entry in entries if entry.entered_at is not None}
