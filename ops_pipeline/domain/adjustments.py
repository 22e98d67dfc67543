"""Changes of an account that no order made: corporate actions, busted trades, what is accepted.

A change counts only where it explains, to the share, a difference between the account and its
orders: an activity that the broker announces before or after it changes the position waits for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from ops_pipeline.domain.execution import round_to_tick
from ops_pipeline.domain.stream import ZERO, Difference
from ops_pipeline.domain.values import Position

ACTIVITY, BUST, ACCEPTED = "activity", "bust", "accepted"
# The cost of a lot stays the same through a split; broker and ledger may round it apart by so much.
COST_TOLERANCE = 0.02
SPLIT_KINDS = frozenset({"SPLIT", "SSP", "DIV"})
RENAME_KINDS = frozenset({"NC", "SC"})


@dataclass(frozen=True)
class Activity:
    """A non-trade activity that moved shares: its id and kind in Alpaca's words, signed shares.

    Of a busted trade, `broker_order_id` names the order of which less is filled than before.
    """

    id: str
    kind: str
    ticker: str
    quantity: Decimal
    day: date
    broker_order_id: str = ""


@dataclass(frozen=True)
class Adjustment:
    """One row: by how many shares the account changed, and what that does to the ledger's lot."""

    kind: str
    difference: Difference
    reason: str
    adjusted_by: str
    ledger_quantity: int = 0
    lot: Position | None = None
    split_ratio: float | None = None
    activity_ids: tuple[str, ...] = ()
    broker_order_id: str | None = None

    @property
    def ticker(self) -> str:
        """Whose shares."""
        return self.difference.ticker

    @property
    def quantity(self) -> Decimal:
        """Shares by which the account changed."""
        return self.difference.by_broker - self.difference.by_orders


def explained(
    found: Iterable[Difference], known: Iterable[Activity], lots: Mapping[str, Position], by: str
) -> list[Adjustment]:
    """Return the adjustments by which activities explain differences; none for the others."""
    activities = list(known)
    made = []
    for difference in found:
        own = [one for one in activities if one.ticker == difference.ticker]
        chosen = _adding_up(own, difference.by_broker - difference.by_orders)
        if difference.is_explained or not chosen:
            continue
        before = difference.by_orders
        for group in _apart(chosen):
            after = before + sum((one.quantity for one in group), ZERO)
            part = replace(difference, by_orders=before, by_broker=after)
            made.append(_adjustment(part, group, activities, lots, by))
            before = after
    return made


def _apart(chosen: Sequence[Activity]) -> Iterator[Sequence[Activity]]:
    """Yield what is one row each: all activities of a ticker, and each order that was busted."""
    if together := [one for one in chosen if not one.broker_order_id]:
        yield together
    yield from ([one] for one in chosen if one.broker_order_id)


def _adding_up(activities: Sequence[Activity], wanted: Decimal) -> Sequence[Activity]:
    """Return the activities that come to these shares: all, those of one kind and day, or one."""
    groups = [
        activities,
        *([b for b in activities if (b.kind, b.day) == (a.kind, a.day)] for a in activities),
        *([one] for one in activities),
    ]
    sums = (group for group in groups if sum((one.quantity for one in group), ZERO) == wanted)
    return next(sums, ())


def _adjustment(
    difference: Difference,
    chosen: Sequence[Activity],
    activities: Sequence[Activity],
    lots: Mapping[str, Position],
    by: str,
) -> Adjustment:
    ticker, first = difference.ticker, chosen[0]
    told = ", ".join(f"{one.kind} of {one.day}: {one.quantity:+f}" for one in chosen)
    plain = Adjustment(
        BUST if first.broker_order_id else ACTIVITY,
        difference,
        told,
        by,
        activity_ids=tuple(one.id for one in chosen if not one.broker_order_id),
        broker_order_id=first.broker_order_id or None,
    )
    if first.kind in SPLIT_KINDS:
        return split_of(plain, lots.get(ticker))
    if first.kind in RENAME_KINDS:
        return _renamed(plain, first, activities, lots)
    return plain


def split_of(plain: Adjustment, lot: Position | None) -> Adjustment:
    """Return the adjustment with the ledger's lot scaled like the whole position."""
    found = plain.difference
    if lot is None or found.by_orders * found.by_broker <= 0:
        return plain
    ratio = found.by_broker / found.by_orders
    # Multiplied first: a third has no end.
    quantity = int(lot.quantity * found.by_broker / found.by_orders)
    price = lot.notional / abs(quantity) if quantity else lot.average_price
    return replace(
        plain,
        ledger_quantity=quantity - lot.quantity,
        lot=replace(lot, average_price=price),
        split_ratio=float(ratio),
    )


def _renamed(
    plain: Adjustment,
    first: Activity,
    activities: Sequence[Activity],
    lots: Mapping[str, Position],
) -> Adjustment:
    """Move the ledger's lot from the old symbol to the new one, with its cost, stop and target."""
    pair = [one for one in activities if (one.kind, one.day) == (first.kind, first.day)]
    others = [one for one in pair if one.ticker != plain.ticker]
    lot = lots.get(plain.ticker)
    if lot and plain.quantity * lot.quantity < 0 and plain.difference.by_broker == 0:
        return replace(plain, ledger_quantity=-lot.quantity, lot=lot)
    for other in others:
        old = lots.get(other.ticker)
        if old and other.quantity * old.quantity < 0 < plain.quantity * old.quantity:
            return _moved(plain, old, -other.quantity)
    return plain


def _moved(plain: Adjustment, old: Position, gone: Decimal) -> Adjustment:
    quantity, scale = int(old.quantity * plain.quantity / gone), float(plain.quantity / gone)
    if not quantity:
        return plain
    lot = replace(
        old,
        average_price=old.notional / abs(quantity),
        stop_price=old.stop_price and round_to_tick(old.stop_price / scale),
        target_price=old.target_price and round_to_tick(old.target_price / scale),
    )
    return replace(plain, ledger_quantity=quantity, lot=lot)


def looks_like_split(found: Difference, broker_price: Decimal, lot: Position | None) -> bool:
    """Return True if the broker holds another number of shares at the same cost as the ledger."""
    if lot is None or found.by_orders * found.by_broker <= 0:
        return False
    ratio = float(found.by_broker / found.by_orders)
    return abs(float(broker_price) * ratio / lot.average_price - 1) <= COST_TOLERANCE


def said(adjustment: Adjustment) -> Iterator[str]:
    """Say what an adjustment does, one sentence for the account and one for the ledger."""
    found, lot = adjustment.difference, adjustment.lot
    yield (
        f"{found.ticker}: {found.by_broker:f} held, {found.by_orders:f} by its orders:"
        f" {adjustment.quantity:+f} accepted"
    )
    if adjustment.split_ratio and lot:
        stop = f"{lot.stop_price / adjustment.split_ratio:,.2f}" if lot.stop_price else "none"
        yield (
            f"as a split of {adjustment.split_ratio:g} for 1: our lot of {lot.quantity:+,} becomes"
            f" {lot.quantity + adjustment.ledger_quantity:+,} at {lot.average_price:,.4f} USD,"
            f" its cost stays, its stop becomes {stop}"
        )
    else:
        yield (
            "as traded by hand: what stands against a lot of ours closes it, the rest counts and is"
            " never traded"
        )
