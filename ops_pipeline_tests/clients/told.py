"""Frames and orders in Alpaca's words, with one override each, and frames that nobody can read."""

import json
from typing import Any

ORDER_ID = "61e69015-8549-4bfd-b9c3-01e75843f47d"
AT = "2021-03-16T18:38:01.942282Z"
DEEP = "[" * 200_000
LONG = 10_000_000


def an_order(**changes: Any) -> dict[str, Any]:
    """Ten shares of AAPL that a person bought, four of them filled."""
    order = {
        "id": ORDER_ID,
        "client_order_id": "by-hand-1",
        "created_at": "2021-03-16T18:38:00Z",
        "updated_at": AT,
        "symbol": "AAPL",
        "qty": "10",
        "filled_qty": "4",
        "filled_avg_price": "187.25",
        "side": "buy",
        "status": "partially_filled",
        "replaced_by": None,
    }
    return order | changes


def a_frame(order: Any = None, **changes: Any) -> dict[str, Any]:
    """The fill of four shares."""
    data = {
        "event": "partial_fill",
        "execution_id": "e-1",
        "timestamp": AT,
        "price": "187.25",
        "qty": "4",
        "order": an_order() if order is None else order,
    }
    return {"stream": "trade_updates", "data": data | changes}


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The document without one of its fields."""
    return {key: value for key, value in document.items() if key != name}


def _text(frame: Any) -> str:
    return json.dumps(frame)


BAD_FRAMES: dict[str, str | bytes] = {
    "no JSON": "{'stream': trade_updates",
    "nothing": "",
    "a list": _text([a_frame()]),
    "null": "null",
    "a number": "7",
    "an unknown event": _text(a_frame(event="trade_bust_2030")),
    "an unknown status": _text(a_frame(an_order(status="quantum"))),
    "an unknown side": _text(a_frame(an_order(side="sideways"))),
    "an unknown stream": _text(a_frame() | {"stream": "binary_updates"}),
    "no stream": _text(without(a_frame(), "stream")),
    "no data": _text(without(a_frame(), "data")),
    "no order": _text(a_frame([])),
    "no event": _text(a_frame(event=None)),
    "no id": _text(a_frame(without(an_order(), "id"))),
    "no quantity filled": _text(a_frame(without(an_order(), "filled_qty"))),
    "no creation": _text(a_frame(without(an_order(), "created_at"))),
    "a time without a zone": _text(a_frame(timestamp="2021-03-16T18:38:01")),
    "NaN": _text(a_frame(an_order(filled_qty=float("nan")))),
    "NaN as text": _text(a_frame(an_order(filled_qty="NaN"))),
    "infinite": _text(a_frame(price="Infinity")),
    "negative": _text(a_frame(an_order(filled_qty="-4"))),
    "more than there is": _text(a_frame(an_order(qty="1e300"))),
    "filled without a fill": _text(a_frame(an_order(status="filled", filled_qty="0"))),
    "NUL": _text(a_frame(an_order(symbol="AA\x00PL"))),
    "a NUL outside": "\x00" + _text(a_frame()),
    "half a surrogate pair": _text(a_frame(an_order(client_order_id="\ud800"))),
    "half a surrogate pair in what replaced it": _text(
        a_frame(an_order(status="replaced", replaced_by="\udfff\x00"))
    ),
    "binary": bytes(range(256)),
    "half of itself": _text(a_frame())[:200],
    "too deep": DEEP,
    "10 MB": _text(a_frame(an_order(symbol="A" * LONG))),
}
