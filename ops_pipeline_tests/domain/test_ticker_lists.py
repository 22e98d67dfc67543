"""Whatever form a file gives tickers in, they are read, or the part that is none is named."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ops_pipeline.domain.ticker_lists import parse_tickers

BOTH = ("AAPL", "MSFT")


FORMS: dict[tuple[str, ...], list[object]] = {
    ("AAPL",): [
        *("AAPL", "aapl", "Aapl", " AAPL ", "$AAPL", "#AAPL", "(AAPL)", "[AAPL]", "'AAPL'"),
        *("NASDAQ:AAPL", "Nasdaq: AAPL", "XNAS:AAPL", "AAPL:US", "AAPL.O", "AAPL.OQ", "aapl.us"),
        *("AAPL US", "AAPL US Equity", "AAPL UW Equity", "\u201cAAPL\u201d", "\u200bAAPL\u00a0"),
        *("\uff21\uff21\uff30\uff2c", "AAPL,AAPL", "AAPL,nan"),
    ],
    ("BRK.B",): ["BRK.B", "BRK/B", "BRK-B", "brk.b", "NYSE: BRK.B", "$BRK.B"],
    ("AAPL", "MSFT"): [
        *("AAPL,MSFT", "AAPL; MSFT", "AAPL|MSFT", "AAPL MSFT", "$AAPL $MSFT", "[AAPL, MSFT]"),
        *("['AAPL', 'MSFT']", '["AAPL","MSFT"]', "('AAPL', 'MSFT')", "{'AAPL', 'MSFT'}"),
        *("['AAPL' 'MSFT']", "['AAPL', None, 'MSFT']", "Index(['AAPL', 'MSFT'], dtype='object')"),
        "array(['AAPL', 'MSFT'], dtype=object)",
        "array(['AAPL', 'MSFT'], dtype='<U4')",
        "[np.str_('AAPL'), np.str_('MSFT')]",
        *("NASDAQ:AAPL, NASDAQ:MSFT", "AAPL US, MSFT US", "['NASDAQ:AAPL|NASDAQ:MSFT']"),
        ["AAPL", None, " MSFT "],
        ("aapl", "msft"),
        np.array(["AAPL", "MSFT"]),
        pd.Series(["AAPL", "MSFT", None]),
        [["AAPL"], ["MSFT"]],
        [{"symbol": "AAPL"}, {"name": "MSFT", "exchange": "NASDAQ"}],
    ],
    (): [None, float("nan"), "", " ", "nan", "None", "[]", "()", "<NA>", [], [None]],
    ("NAN",): ["NAN"],
    ("^GSPC", "BTC-USD", "EURUSD=X", "ES=F", "LON:VOD", "0700.HK"): [
        "^GSPC, BTC-USD, EURUSD=X, ES=F, LON:VOD, 0700.HK"
    ],
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(value, expected) for expected, values in FORMS.items() for value in values],
    ids=repr,
)
def test_tickers_are_read_in_every_form(value: object, expected: tuple[str, ...]) -> None:
    assert parse_tickers(value) == expected


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (5, "5"),
        (True, "True"),
        ({"AAPL": 1}, "{'AAPL': 1}"),
        (["AAPL", 5], "5"),
        (["AAPL", "not one"], "'NOT ONE'"),
        (["AAPL", {"id": 7}], "ID"),
        ("AAPL & MSFT", "'&'"),
        ("'AAPL' and 'MSFT'", "'AND'"),
        ("AAPL\u2026", "AAPL..."),
        ("['AAPL', ..., 'MSFT']", "'...'"),
        ("<AAPL>", "'<AAPL>'"),
        ("../../etc/passwd", "'../../ETC/PASSWD'"),
        ("\u82f9\u679c", "\u82f9\u679c"),
        ("A" * 30, "A" * 30),
    ],
    ids=repr,
)
def test_what_is_no_symbol_is_named(value: Any, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        parse_tickers(value)
