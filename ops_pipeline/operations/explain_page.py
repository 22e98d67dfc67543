"""An explanation as short tables, for a terminal and for a page of the UI."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ops_pipeline.domain.markdown import markdown_table, markdown_text, one_line
from ops_pipeline.domain.session import NEW_YORK, both_zones
from ops_pipeline.domain.signals import Confidence
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.operations.explain import Basis, Explanation, RoundTrip, usd
from ops_pipeline.storage.explain import (
    DispatcherRun,
    Executed,
    Recommended,
    Story,
    Unresolved,
    VisibleBars,
)
from ops_pipeline.storage.orders import PlacedOrder

SHOWN_BARS = 5
LONGEST_TITLE = 80


@dataclass(frozen=True)
class Section:
    """One short table; its cells are text as it stands in the data, for the printer to escape."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(found: Explanation) -> list[Section]:
    """The tables of an explanation that have rows, from the verdict down to its sources."""
    made = [_links(found.unresolved)] if found.unresolved else []
    if found.execution:
        made.append(_execution(found.execution))
    if found.order:
        made.append(_order(found.order))
    if found.round_trip:
        made.append(_position(found.round_trip))
    if found.recommendation:
        made += [_recommendation(found.recommendation), _gates(found)]
    if found.basis:
        made += _stages(found.basis)
    made.append(_runs(found))
    return [section for section in made if section.rows]


def as_markdown(found: Explanation) -> str:
    """The same as a page; a title can break neither its table nor the page."""
    parts = [f"**{markdown_text(found.headline)}**"]
    for section in sections(found):
        parts += [markdown_text(section.title)] if section.title else []
        parts.append(markdown_table(section.columns, section.rows))
    return "\n\n".join(parts)


def as_note(found: Explanation) -> str:
    """The same in a few lines: the verdict, the gates, the confidence and the news."""
    passed = sum(gate.passed for gate in found.gates)
    lines = [
        f"**{markdown_text(found.headline)}**",
        f"- gates: {passed} of {len(found.gates)} passed",
    ]
    if found.execution:
        lines.append(f"- `ops-pipeline explain {found.execution.execution_id}`")
    if found.basis and found.basis.confidence:
        lines.append(f"- confidence: {_product(found.basis.confidence)}")
    if found.basis:
        told = [f"{_short(story.title)} ({_say(story.score)})" for story in found.basis.news[-3:]]
        lines.append(f"- news: {markdown_text('; '.join(told) or 'none')}")
    return "\n".join(lines)


def _facts(what: str, rows: Iterable[tuple[str, str]]) -> Section:
    return Section("", (what, ""), tuple(rows))


def _bar(bar: Mapping[str, Any]) -> str:
    prices = ", ".join(f"{name} {_say(bar.get(name))}" for name in ("open", "high", "low", "close"))
    return f"{bar.get('minute')}: {prices}, volume {_say(bar.get('volume'))}"


def _execution(executed: Executed) -> Section:
    bar = executed.bar_used
    what = f"{executed.side} {executed.quantity} {executed.ticker} at {usd(executed.price)}"
    rows = [
        ("id", str(executed.execution_id)),
        ("order" if executed.is_simulated else "expected", what),
        ("simulated" if executed.is_simulated else "decided", _exactly(executed.at)),
        ("fill", f"{executed.fill_model}, slippage {_say(executed.slippage_bps)} bps"),
        ("bar used", _bar(bar) if bar else "none: a broker's closing order needs no bar"),
    ]
    if executed.stop_price is not None:
        stop, target = usd(executed.stop_price), usd(executed.target_price)
        held = f"held for {_say(executed.max_hold_minutes)} minutes at most"
        rows.insert(2, ("stop, target", f"{stop}, {target}; {held}"))
    return _facts("execution", rows)


def _order(order: PlacedOrder) -> Section:
    filled = f"{order.filled_quantity} of {order.quantity} at {usd(order.filled_price)}"
    rows = (
        ("state", f"{order.state}, {order.reason}" if order.reason else order.state),
        ("filled", filled),
        ("filled at", _exactly(order.filled_at) if order.filled_at else "-"),
        ("our id", order.client_order_id),
        ("the broker's id", order.broker_order_id or "-"),
        ("handed over", f"{order.tries} times"),
    )
    return _facts("order at the broker", rows)


def _position(trip: RoundTrip) -> Section:
    rows = (
        ("exit by", trip.exit),
        ("opened", _exactly(trip.opened_at) if trip.opened_at else "-"),
        ("by execution", str(trip.opening_id or "-")),
        ("first price", usd(trip.opening_price)),
        ("average price", usd(trip.average_price)),
        ("profit USD", "-" if trip.profit_usd is None else f"{trip.profit_usd:+,.2f}"),
    )
    return _facts("the position that it closed", rows)


def _recommendation(recommended: Recommended) -> Section:
    status = recommended.status
    if recommended.failure_reason:
        status = f"{status}, {recommended.failure_reason}"
    rows = (
        ("id", str(recommended.id)),
        ("asks to", f"{recommended.intent} with {recommended.action}"),
        ("minute", both_zones(recommended.minute)),
        ("made", _exactly(recommended.ts)),
        ("expires", _exactly(recommended.expires_at)),
        ("status", status),
    )
    return _facts("recommendation", rows)


def _gates(found: Explanation) -> Section:
    rows = [
        (
            gate.gate,
            "passed" if gate.passed else "REFUSED",
            gate.reason,
            _observed(gate.observed),
            _say(gate.threshold),
        )
        for gate in found.gates
    ]
    return Section("gates", ("gate", "", "reason", "observed", "threshold"), tuple(rows))


def _observed(value: Any) -> str:
    is_instant = isinstance(value, str) and value.endswith("+00:00")
    return f"{datetime.fromisoformat(value):%H:%M:%S}" if is_instant else _say(value)


def _stages(basis: Basis) -> list[Section]:
    made = [_signal(basis), _watchlist(basis), _features(basis)]
    if basis.bars:
        made.append(_bars(basis.bars))
    if basis.features and not basis.features["news_ids"]:
        made.append(_facts("news", [("none", _no_story(basis.features["news_count_60"]))]))
    return [*made, *(_story(story) for story in basis.news)]


def _signal(basis: Basis) -> Section:
    signal = basis.signal
    if signal is None:
        return _facts("signal", ())
    rows = [
        ("decision", f"{signal.action} by {signal.rule}"),
        ("confidence", _say(signal.confidence)),
    ]
    if basis.confidence:
        parts = basis.confidence.components
        rows += [
            ("product", _product(basis.confidence)),
            ("base from", ", ".join(f"{name} {_say(value)}" for name, value in parts.items())),
        ]
    return _facts("signal", rows)


def _product(confidence: Confidence) -> str:
    factors = [f"{name} {_say(value)}" for name, value in confidence.multipliers.items()]
    return f"{_say(confidence.final)} = base {_say(confidence.base)} x {' x '.join(factors)}"


def _watchlist(basis: Basis) -> Section:
    entry = basis.watchlist
    if entry is None:
        return _facts("watchlist in force", ())
    parts = ", ".join(f"{name} {_say(value)}" for name, value in entry.components.items())
    rows = (
        ("decided", both_zones(entry.minute)),
        ("verdict", f"{entry.reason}, rank {entry.rank}"),
        ("score", f"{_say(entry.score)} of {parts}"),
        ("entered", both_zones(entry.entered_at) if entry.entered_at else "-"),
    )
    return _facts("watchlist in force", rows)


def _features(basis: Basis) -> Section:
    row = basis.features or {}
    shown = [
        (name, _say(value))
        for name, value in row.items()
        if name not in ("ticker", "minute", "session_date", "news_ids")
    ]
    half = (len(shown) + 1) // 2
    right = [*shown[half:], ("", "")][:half]
    rows = tuple((*a, *b) for a, b in zip(shown[:half], right, strict=True))
    return Section("features", ("feature", "value", "feature", "value"), rows)


def _bars(bars: VisibleBars) -> Section:
    since = both_zones(bars.first_minute) if bars.first_minute else "-"
    title = f"the newest of {bars.count} bars since {since}"
    rows = [
        (_say(b.minute), *(_say(value) for value in (b.open, b.high, b.low, b.close, b.volume)))
        for b in bars.newest[:SHOWN_BARS]
    ]
    return Section(title, ("minute", "open", "high", "low", "close", "volume"), tuple(rows))


def _no_story(count: int) -> str:
    if count == 0:
        return "no scored story in the hour before"
    return f"{count} in the hour before, when rows did not name their stories yet"


def _story(story: Story) -> Section:
    verdict = f"{story.label} {_say(story.score)} with probability {_say(story.probability)}"
    rows = (
        ("title", one_line(story.title)),
        ("link", one_line(story.link)),
        ("told by", ", ".join(story.feeds) or "-"),
        ("published", f"{_say(story.published_at)}, known {_say(story.available_at)}"),
        ("ticker by", f"{story.match_source} {one_line(story.span or '')}"),
        ("score", f"{verdict}, by {story.model} {story.revision}"),
    )
    return _facts("news", (("id", story.news_id), *rows))


def _runs(found: Explanation) -> Section:
    rows: list[tuple[str, str]] = []
    if found.basis and found.basis.cutoff:
        known = found.basis.cutoff
        rows.append(("cut-off", f"{_say(known.cutoff)}, stamped by {known.run_id}"))
    if found.basis:
        rows += found.basis.stage_runs.items()
    if found.run:
        rows += _dispatcher(found.run)
    return _facts("runs of Dagster", rows)


def _dispatcher(run: DispatcherRun) -> list[tuple[str, str]]:
    usual = DispatcherConfig().document()
    changed = {name: value for name, value in run.config.items() if usual.get(name) != value}
    said = ", ".join(f"{name} {_say(value)}" for name, value in changed.items()) or "nothing"
    version = f"version {_say(run.config_version)}, hash {run.config_hash}"
    return [
        ("dispatch", run.orchestrator_run_id),
        ("as its run", f"{run.run_id}, mode {run.mode}, code {run.code_version}"),
        ("settings", f"{version}; not as by default: {said}"),
    ]


def _links(links: Sequence[Unresolved]) -> Section:
    rows = tuple((link.link, link.missing) for link in links)
    return Section("", ("NOT FOUND", "missing"), rows)


def _short(title: str) -> str:
    line = one_line(title)
    return line if len(line) <= LONGEST_TITLE else f"{line[:LONGEST_TITLE]}..."


def _exactly(at: datetime) -> str:
    local, universal = at.astimezone(NEW_YORK), at.astimezone(UTC)
    return f"{local:%Y-%m-%d %H:%M:%S} ET ({universal:%H:%M:%S} UTC)"


def _say(value: Any) -> str:
    """A value as a person reads it; times are UTC."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
