"""Which tickers a text speaks of, by what evidence, and where it stands.

Order of evidence, the strongest first: the feed's own ticker, an exchange mention such as
(NASDAQ: AAPL), a cashtag, a symbol, a company's name. A name that is also a word counts only where
no longer phrase swallows that very place ("price target", "H-1B visa"), and for the worst of them
only beside words that go with a company.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ops_pipeline.domain.values import Ticker

FEED, EXCHANGE, CASHTAG, SYMBOL, ALIAS = "feed", "exchange", "cashtag", "symbol", "alias"
# Symbols that are words too: bare they do not count, in parentheses they do.
_WORDS = """
    A AI ALL ANY ARE AT BE BIG CAN CAR CAT COST DE EAT FAST FOR FUN GAP GO GOOD HAS HD HE HOPE
    IT KEY LIFE LOVE LOW MA MAN META MET NET NEW NEXT NICE NOW OLD ON ONE OR OUT PAY PEAK PLAY
    REAL RUN SAFE SEE SO TALK TRUE TV TWO UK US USA WELL WORK YOU
"""
AMBIGUOUS_SYMBOLS = frozenset(_WORDS.split())
_EXCHANGES = r"NASDAQ(?:GS|GM|CM)?|NYSE(?: American| Arca|MKT)?|AMEX|Nasdaq|BATS|CBOE"
_SHAPE = r"[A-Z]{1,5}(?:[.-][A-Z])?"
_EXCHANGE = re.compile(rf"\b(?:{_EXCHANGES})\s*:\s*({_SHAPE})(?![\w.-]*\w)")
_CASHTAG = re.compile(rf"(?<![\w$])\$({_SHAPE})\b(?![.-]\w)")
# A trademark sign in ASCII stands against its word: Apple(R), Apple(TM).
_TRADEMARK = re.compile(r"(?<=\w)\((?:R|TM|SM)\)")
_BRACKETED = re.compile(rf"\(({_SHAPE}|[A-Z]{{1,5}}\.OQ)\)")
# What Reuters appends to a symbol: the exchange.
_EXCHANGE_SUFFIX = re.compile(r"\.(?:OQ?|N|K)$")
_BARE = re.compile(r"(?<![\w$.-])([A-Z]{2,5})(?![\w-])")


@dataclass(frozen=True)
class Mention:
    """A ticker in a text, how it was recognised, and the words that named it."""

    ticker: str
    match_source: str
    span: str


@dataclass(frozen=True)
class _Rule:
    """When a name that is also a word is the company's."""

    blockers: re.Pattern[str]
    before: re.Pattern[str] | None = None
    after: re.Pattern[str] | None = None

    def allows(self, text: str, start: int, end: int) -> bool:
        """Whether the word at this place is the company's name."""
        around = text[max(0, start - _REACH) : end + _REACH]
        at = min(start, _REACH)
        for blocker in self.blockers.finditer(around):
            if blocker.start() <= at and at + end - start <= blocker.end():
                return False
        if self.after is None or self.before is None:
            return True
        told_before = self.before.search(text[max(0, start - _REACH) : start])
        return bool(told_before or self.after.match(text[end : end + _REACH]))


# How far around a name its company is recognised by.
_REACH = 40


def _phrases(*phrases: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(phrases) + r")\b", re.IGNORECASE)


_AFTER = re.compile(
    r"(?:['\u2019]s?\b|,? (?:Inc|Corp|Corporation|Co|Company|plc|Stores)\b"
    r"|(?: stock| shares?| sharehold| investors?| earnings| revenue| profit| results| guidance"
    r"| outlook| dividend| buyback| CEO| CFO| chief| executive| board| stores?| shoppers"
    r"| customers| employees| workers| says| said| reports?| reported| beats?| misses| missed"
    r"| posts?| posted| tops?| raises| raised| cuts?| lowers| lifts| plans?| names?| hires"
    r"| announces?| announced| launches| unveils| opens| closes| buys| sells| sues| sued| settles"
    r"| recalls| expands| falls?| fell| drops?| dropped| rises?| rose| jumps?| jumped| soars?"
    r"| soared| slides?| slid| sinks?| sank| tumbles?| tumbled| gains?| gained| surges?| surged"
    r"| plunges?| plunged| slumps?| rallies| climbs?| climbed| to (?:open|close|cut|buy|sell|pay"
    r"|report|launch|hire|raise|acquire|spin|expand|invest|replace|lay|shut|offer|join|test)"
    r"| is (?:a|the|an|up|down|buying|selling|cutting|closing|opening|testing|hiring|facing)"
    r"| downgraded| upgraded| initiated|,? (?:and )?(?:Walmart|Costco|Mastercard|American Express"
    r"|Old Navy|Nordstrom|Macy|Kohl|Best Buy|Home Depot|Amazon|Lowe))\b)",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?:\b(?:shares of|stock of|retailers?|retailer|chain|giants?|company|at|from|owner of"
    r"|makers?|rivals?|like|versus|vs\.?|competitor|lawsuit against|sues|investors in|stake in"
    r"|CEO of|buy|sell|upgrades?|downgrades?|acquires?|Walmart(?:,| and)|Costco(?:,| and)"
    r"|Mastercard(?:,| and)|American Express(?:,| and))\s+)$",
    re.IGNORECASE,
)
_MADE = (
    "price|sales|profits?|revenues?|growth|inflation|earnings|production|output|deliver(?:y|ies)"
    "|climate|emissions?|rates?|fed|margins?|guidance|on|off|above|below|its|their|his|her|our|the"
    "|a|an|new|old|key|next|prime|main|takeover|acquisition|merger|moving|easy|soft|hard|upside"
    "|downside|full-year|annual|quarterly|official|missed|debt|savings|budget|deficit|capital|cost"
)
NAMES = {
    "apple": _Rule(
        _phrases(
            "apple (?:pies?|juice|cider|sauce|trees?|orchards?|picking|crisp|crumble|valley|seeds?"
            "|harvest|growers?|farm(?:s|ers?)?|butter|blossoms?|bobbing|martini|bees?|crops?)",
            "big apple",
            "fiona apple",
            "adam's apple",
            "(?:candy|caramel|toffee|green|red|rotten|bad|custard|rose) apple",
            "apple of (?:his|her|their|my|your|our) eye",
        )
    ),
    "amazon": _Rule(
        _phrases(
            "amazon(?:ian)? (?:rain ?forests?|river|basin|jungle|forests?|deforestation|tribes?"
            "|fires?|delta|wildfires?|indigenous|biome|drought|region|summit|trees|dam|logging)",
            "(?:brazil(?:'s|ian)?|peru(?:'s|vian)?|colombia(?:'s|n)?|ecuador(?:'s|ian)?) amazon",
        )
    ),
    "meta": _Rule(
        _phrases(
            "meta (?:analys[ie]s|description|tags?|data|materials|financial|review|physics|stud(?:y"
            "|ies)|narrative|commentary|gaming|game)",
            "(?:very|pretty|too|gets|getting|going) meta",
        )
    ),
    "oracle": _Rule(_phrases("oracle of omaha", "oracle (?:bones?|cards?)", "oracle at delphi")),
    "target": _Rule(
        _phrases(
            rf"(?:{_MADE}) targets?",
            "targets? (?:price|date|range|audience|market|rate|zone|level|practice|area"
            "|group|of|for|on|by|in|is (?:to|for))",
            r"target to (?:\$|\d|usd|eur)[\d.,]*",
            r"target \$[\d.,]+",
            "(?:raise[sd]?|cut|cuts|lift(?:s|ed)?|hit|hits|misse[sd]|beat|beats|reache[sd]|set|sets"
            "|meets?|met|above|below|lower(?:s|ed)?|hike[sd]?|boost(?:s|ed)?|trim(?:s|med)?)"
            " target",
        ),
        _BEFORE,
        _AFTER,
    ),
    "gap": _Rule(
        _phrases(
            "(?:pay|wage|gender|wealth|income|funding|trade|skills?|generation|age|data|output|the"
            "|a|this|price|yield|valuation|supply|trust|financing|credibility|air|budget|tax|fair"
            "|value|breakaway|exhaustion|opening|bull(?:ish)?|bear(?:ish)?|close[sd]?|closing|fill"
            "|fills|narrow(?:s|ed|ing)?|widen(?:s|ed|ing)?|bridge[sd]?|bridging) gap",
            "gap (?:between|up|down|higher|lower|in|of|year|years|insurance|analysis|fill|filled"
            "|trading|and go|open(?:ing)?|wide[rn]s?|narrow(?:s|ed|er)?)",
        ),
        _BEFORE,
        _AFTER,
    ),
    "visa": _Rule(
        _phrases(
            r"(?:h-?1-?b|h-?2-?[ab]|l-?1|o-?1|eb-?5|f-?1|j-?1|student|work|tourist|travel|golden"
            r"|schengen|entry|exit|transit|business|investor|immigrant|visitor|digital nomad"
            r"|us|u\.s\.|uk|australian|canadian|chinese|russian|indian|work-permit|a|the) visas?",
            "visas? (?:waivers?|programs?|programmes?|applications?|applicants?|fees?|rules?"
            "|bans?|holders?|restrictions?|process(?:ing)?|polic(?:y|ies)|requirements?|free|lottery"
            "|interviews?|overstays?|sponsorship|backlogs?|on arrival|bulletin|status|appointments?"
            "|denials?|caps?|schemes?|reforms?|crackdown|regime|curbs)",
        ),
        _BEFORE,
        _AFTER,
    ),
    "now": _Rule(_phrases("now"), _BEFORE, _AFTER),
}


class TickerLinker:
    """Finds the tickers of a universe in text."""

    def __init__(self, universe: Sequence[Ticker]) -> None:
        self._symbols = frozenset(ticker.symbol for ticker in universe)
        self._names: dict[str, list[str]] = {}
        for ticker in universe:
            for alias in ticker.aliases:
                # A headline may be in capitals as a whole.
                for name in dict.fromkeys((alias, alias.upper())):
                    self._names.setdefault(name, []).append(ticker.symbol)
        ordered = sorted(self._names, key=len, reverse=True)
        self._alias = (
            re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, ordered)) + r")(?![\w-])")
            if ordered
            else None
        )

    def mentions(self, text: str) -> list[Mention]:
        """One mention for each ticker, by its strongest evidence, ordered by ticker."""
        found: dict[str, Mention] = {}
        for mention in self._all(_TRADEMARK.sub("", text)):
            found.setdefault(mention.ticker, mention)
        return [found[ticker] for ticker in sorted(found)]

    def _all(self, text: str) -> Iterator[Mention]:
        yield from self._marked(text, _EXCHANGE, EXCHANGE)
        yield from self._marked(text, _CASHTAG, CASHTAG)
        yield from self._marked(text, _BRACKETED, SYMBOL)
        for line in text.splitlines():
            # Where all is in capitals, a word in capitals says nothing.
            if line.upper() != line or len(line.split()) <= 2:
                yield from self._bare(line)
        yield from self._aliases(text)

    def _marked(self, text: str, pattern: re.Pattern[str], source: str) -> Iterator[Mention]:
        for match in pattern.finditer(text):
            symbol = match[1].replace("-", ".")
            if symbol not in self._symbols:
                symbol = _EXCHANGE_SUFFIX.sub("", symbol)
            if symbol in self._symbols:
                yield Mention(symbol, source, match[0].strip("()"))

    def _bare(self, line: str) -> Iterator[Mention]:
        for match in _BARE.finditer(line):
            if match[1] in self._symbols and match[1] not in AMBIGUOUS_SYMBOLS:
                yield Mention(match[1], SYMBOL, match[0])

    def _aliases(self, text: str) -> Iterator[Mention]:
        if self._alias is None:
            return
        for match in self._alias.finditer(text):
            rule = NAMES.get(match[1].lower())
            if rule is None or rule.allows(text, *match.span()):
                for symbol in self._names[match[1]]:
                    yield Mention(symbol, ALIAS, match[0])
