import pytest

from ops_pipeline.clients.universe import universe_file
from ops_pipeline.domain.linking import AMBIGUOUS_SYMBOLS, Mention, TickerLinker
from ops_pipeline.domain.values import Ticker

UNIVERSE = [
    Ticker("AAPL", ("Apple",)),
    Ticker("META", ("Meta Platforms", "Meta", "Facebook")),
    Ticker("GOOGL", ("Alphabet", "Google")),
    Ticker("GOOG", ("Alphabet", "Google")),
    Ticker("BRK.B", ("Berkshire Hathaway",)),
    Ticker("T", ("AT&T",)),
    Ticker("NVDA"),
]
LINKER = TickerLinker(UNIVERSE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$AAPL jumps", [("AAPL", "cashtag", "$AAPL")]),
        ("Buy $BRK.B now", [("BRK.B", "cashtag", "$BRK.B")]),
        ("$META slides", [("META", "cashtag", "$META")]),
        ("$T pays", [("T", "cashtag", "$T")]),
        ("AAPL jumps", [("AAPL", "symbol", "AAPL")]),
        ("(AAPL)", [("AAPL", "symbol", "AAPL")]),
        ("NVDA, AAPL", [("AAPL", "symbol", "AAPL"), ("NVDA", "symbol", "NVDA")]),
        ("Apple's profit", [("AAPL", "alias", "Apple")]),
        ("Meta Platforms grows", [("META", "alias", "Meta Platforms")]),
        ("AT&T pays", [("T", "alias", "AT&T")]),
        ("Google wins", [("GOOG", "alias", "Google"), ("GOOGL", "alias", "Google")]),
        ("Apple: $AAPL (AAPL)", [("AAPL", "cashtag", "$AAPL")]),
        ("Apple (AAPL)", [("AAPL", "symbol", "AAPL")]),
        ("Apple(AAPL)", [("AAPL", "symbol", "AAPL")]),
        ("Results (AAPL.O) are out", [("AAPL", "symbol", "AAPL.O")]),
        ("Results (AAPL.OQ) are out", [("AAPL", "symbol", "AAPL.OQ")]),
        ("Results (BRK.B) are out", [("BRK.B", "symbol", "BRK.B")]),
    ],
)
def test_mentions_finds_a_ticker_by_its_strongest_evidence(
    text: str, expected: list[tuple[str, str, str]]
) -> None:
    assert LINKER.mentions(text) == [Mention(*found) for found in expected]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Nothing of note",
        "Applebee's opens",
        "BigApple pie",
        "non-Apple phones",
        "apple harvest",
        "Metadata leaks",
        "Apple-like",
        "META analysis",
        "T minus ten",
        "AAPLX",
        "XAAPL",
        "AAPL-USD",
        "aapl",
        "www.AAPL.com",
        "$AAPLX",
        "$MSFT",
        "$$$",
    ],
)
def test_mentions_when_a_word_only_looks_like_a_ticker_then_nothing(text: str) -> None:
    assert LINKER.mentions(text) == []


@pytest.mark.parametrize("symbol", sorted(AMBIGUOUS_SYMBOLS))
def test_an_ambiguous_symbol_counts_only_as_a_cashtag(symbol: str) -> None:
    linker = TickerLinker([Ticker(symbol)])
    assert linker.mentions(f"{symbol} is a word") == []
    assert [m.match_source for m in linker.mentions(f"${symbol} is a ticker")] == ["cashtag"]


@pytest.mark.parametrize("sign", ["R", "TM"])
def test_a_trademark_sign_in_ascii_is_no_ticker(sign: str) -> None:
    linker = TickerLinker([Ticker(sign)])
    assert linker.mentions(f"Apple({sign}) phones") == []
    assert [m.ticker for m in linker.mentions(f"Ryder ({sign}) trucks")] == [sign]


def test_an_alias_is_text_and_no_pattern() -> None:
    assert TickerLinker([Ticker("X", ("U.S. Steel (X)",))]).mentions("UxSx Steel X") == []


def test_mentions_when_no_ticker_has_aliases_then_still_finds_symbols() -> None:
    linker = TickerLinker([Ticker("NVDA")])
    assert [mention.ticker for mention in linker.mentions("Nvidia, NVDA")] == ["NVDA"]


def test_mentions_of_an_empty_universe_are_none() -> None:
    assert TickerLinker([]).mentions("Apple $AAPL AAPL") == []


WIDE = TickerLinker(
    [
        *universe_file().known().values(),
        Ticker("TGT", ("Target",)),
        Ticker("GAP", ("Gap",)),
        Ticker("V", ("Visa",)),
        Ticker("WMT", ("Walmart",)),
        Ticker("T", ("AT&T",)),
        Ticker("BRK.B", ("Berkshire Hathaway",)),
        Ticker("ALL", ("Allstate",)),
        Ticker("COST", ("Costco",)),
    ]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Apple: a company wherever no longer phrase swallows it.
        ("APPLE SHARES JUMP", "AAPL alias"),
        ("Apple to open new store in Paris", "AAPL alias"),
        ("Apple's services revenue hits a record", "AAPL alias"),
        ("Apple\u2019s new iPhone goes on sale", "AAPL alias"),
        ("Why Apple fell today", "AAPL alias"),
        ("Grandma's apple pie recipe wins the fair", ""),
        ("Apple pie prices climb before Thanksgiving", ""),
        ("APPLE PIE PRICES CLIMB", ""),
        ("Apple growers fear a late frost", ""),
        ("Apple orchards in Washington hit by hail", ""),
        ("The Big Apple braces for snow", ""),
        ("Fiona Apple announces a tour", ""),
        ("Apple cider vinegar fad fades", ""),
        ("Apple unveils phone as apple growers strike", "AAPL alias"),
        ("Apple pie was served as Apple reported earnings", "AAPL alias"),
        # Amazon
        ("Amazon raises seller fees", "AMZN alias"),
        ("AMAZON TO CUT 14,000 JOBS", "AMZN alias"),
        ("Amazon rainforest fires reach a new high", ""),
        ("Amazon Rain Forest loses more trees", ""),
        ("Brazil's Amazon dries up", ""),
        ("Illegal logging along the Amazon River", ""),
        ("Amazon deforestation slows, Amazon pledges money", "AMZN alias"),
        ("AWS outage takes sites down", "AMZN alias"),
        # Meta
        ("Meta cuts jobs again", "META alias"),
        ("Meta Platforms (META) slides", "META symbol"),
        ("META SHARES FALL", "META alias"),
        ("A meta-analysis of statins", ""),
        ("Meta analysis finds no effect", ""),
        ("Meta Materials files for bankruptcy", ""),
        ("Facebook parent faces trial", "META alias"),
        ("That joke gets very Meta", ""),
        # Target: only beside words that go with a company.
        ("Target stock price target raised", "TGT alias"),
        ("Target shares fall after weak holiday sales", "TGT alias"),
        ("Target beats on earnings, raises outlook", "TGT alias"),
        ("Target to open 20 stores", "TGT alias"),
        ("Walmart and Target report this week", "TGT alias, WMT alias"),
        ("Shoppers turn away from Target", "TGT alias"),
        ("Retailer Target names a new CEO", "TGT alias"),
        ("TARGET CUTS OUTLOOK", "TGT alias"),
        ("Analyst lifts price target on Tesla", "TSLA alias"),
        ("Analyst Lifts Tesla Price Target to $400", "TSLA alias"),
        ("Fed Keeps Inflation Target at 2%", ""),
        ("Target Price Cut at Wells Fargo", ""),
        ("Company Misses Sales Target", ""),
        ("Nvidia Stock Hits Target", "NVDA alias"),
        ("On Target for a Soft Landing", ""),
        ("Climate Target in Doubt", ""),
        ("Target date funds see inflows", ""),
        ("Price Target Changes for Target: analysts see Target shares at $120", "TGT alias"),
        # Gap
        ("Gap shares soar as Old Navy grows", "GAP alias"),
        ("Gap Inc. names CEO", "GAP alias"),
        ("Gap's turnaround takes hold", "GAP alias"),
        ("Gender pay gap narrows", ""),
        ("Gap between rich and poor widens", ""),
        ("The Gap Up in Tesla", "TSLA alias"),
        ("Tesla Shares Gap Higher", "TSLA alias"),
        ("Wealth Gap Grows", ""),
        ("MIND THE GAP", ""),
        # Visa
        ("Visa and Mastercard settle with merchants", "V alias"),
        ("Visa reports record payments volume", "V alias"),
        ("Visa's margins widen", "V alias"),
        ("H-1B visa fee raised to $100,000", ""),
        ("H-1B Visa Fee Raised to $100,000", ""),
        ("Student Visa Applications Fall", ""),
        ("Visa Rules Tightened", ""),
        ("Tech firms protest visa curbs; Visa shares slip", "V alias"),
        # Symbols that are words
        ("ServiceNow (NOW) jumps", "NOW symbol"),
        ("Stocks to buy NOW", ""),
        ("ALL STOCKS ON SALE", ""),
        ("Allstate (NYSE: ALL) raises premiums", "ALL exchange"),
        ("IT spending slows", ""),
        ("Cloudflare (NET) outage", "NET symbol"),
        ("NET income rises", ""),
        ("What does it COST", ""),
        # Exchanges
        ("Apple Inc. (NASDAQ: AAPL) said", "AAPL exchange"),
        ("Apple Inc. (NASDAQ:AAPL) said", "AAPL exchange"),
        ("Berkshire (NYSE: BRK.B) buys", "BRK.B exchange"),
        ("Berkshire (NYSE: BRK-B) buys", "BRK.B exchange"),
        ("AT&T (NYSE: T) pays", "T exchange"),
        ("Somebody (NASDAQ: AAPLX) said", ""),
        ("Somebody (OTC: AAPL2) said", ""),
        # Cashtags
        ("$TSLA to the moon", "TSLA cashtag"),
        ("$TSLA,$NVDA", "NVDA cashtag, TSLA cashtag"),
        ("paid $T and more", "T cashtag"),
        ("US$AAPL", ""),
        # Bare symbols
        ("Is AAPL a buy?", "AAPL symbol"),
        ("MSFT/GOOGL", "GOOGL symbol, MSFT symbol"),
        ("Nvidia, AMD and Intel", "AMD symbol, INTC alias, NVDA alias"),
        # Names
        ("Microsoft's cloud grows", "MSFT alias"),
        ("Microsofties gather", ""),
        ("TSMC lifts forecast", "TSM alias"),
        ("Oracle of Omaha writes a letter", ""),
        ("Oracle wins cloud deal", "ORCL alias"),
        ("S&P 500 ends higher", "SPY alias"),
        # What a feed may hold
        ("", ""),
        ("\U0001f680\U0001f680 $NVDA \U0001f680", "NVDA cashtag"),
        ("Apple\u306e\u682a\u4fa1\u304c\u4e0a\u6607", ""),
        ("\uc560\ud50c Apple \uc8fc\uac00", "AAPL alias"),
    ],
)
def test_texts_speak_of(text: str, expected: str) -> None:
    found = [f"{m.ticker} {m.match_source}" for m in WIDE.mentions(text) if m.ticker != "GOOG"]
    assert ", ".join(found) == expected


def test_the_words_that_named_a_ticker_are_told() -> None:
    (mention,) = WIDE.mentions("Analysts see Apple Inc. (NASDAQ: AAPL) at $300")
    assert mention == Mention("AAPL", "exchange", "NASDAQ: AAPL")


def test_a_long_text_is_searched_in_no_time() -> None:
    text = "Target price target Visa visa rules Apple pie the gap " * 2_000
    assert len(text) > 100_000
    assert {mention.ticker for mention in WIDE.mentions(text)} <= {"TGT", "V", "AAPL", "GAP"}
