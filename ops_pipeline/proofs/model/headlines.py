"""Headlines from templates: of nobody, about nothing that happened, in every length."""

from itertools import product

COMPANIES = (
    "Apple",
    "Acme Holdings Plc",
    "Bank of Norwich",
    "Contoso",
    "JPMorgan",
    "$TSLA",
    "Fjord Shipping AS",
    "Boeing",
    "Intel",
    "Globex Corporation",
    "Nordic Paper Mills Oyj",
    "Zeta Pharma",
    "Walmart",
    "the regional lender",
    "Initech",
)
EVENTS = (
    "beats expectations as quarterly profit soars 34%",
    "misses estimates and cuts its full-year outlook",
    "to hold its annual general meeting on 14 May",
    "shares tumble",
    "raises dividend",
    "names a new chief financial officer",
    "warns of weaker demand in Europe, plans 1,200 layoffs",
    "wins a EUR 45 mn order from the Finnish Ministry of Defence",
    "says operating loss narrowed to $3.1 million from $9.8 million a year earlier",
    "is under investigation for accounting fraud, sources say",
    "upgraded to buy at Example Securities, price target lifted to $212 from $180",
    "downgraded",
    "completes the sale of its packaging unit; terms were not disclosed",
    "net sales fell by 5 per cent to 1.2 billion, in line with a preliminary statement",
    "recalls 80,000 vehicles over a braking fault that was found by the regulator last autumn",
    "stock jumps after hours",
    "opens a plant near Leipzig",
    "does not expect the lawsuit to have a material effect on its results",
    "record revenue, strong guidance, and a $10 billion buyback: what analysts are saying now",
    "files for bankruptcy protection",
)
TAILS = (
    "",
    " - report",
    " (UPDATE 2)",
    "; the broader market was little changed in thin trading ahead of the central bank's decision",
    ". The company's shares have risen 12 percent since January, against 4 percent for its peers",
    " amid a selloff",
    "?",
)


def headlines(count: int) -> list[str]:
    """So many different headlines, always the same ones: good, bad, neutral, short and long.

    Raises:
        ValueError: there are not so many.
    """
    made = [f"{name} {event}{tail}" for name, event, tail in product(COMPANIES, EVENTS, TAILS)]
    if count > len(made):
        raise ValueError(f"there are {len(made)} headlines, not {count}")
    # A stride that shares no factor with their number visits each once, and mixes all three.
    return [made[number * 989 % len(made)] for number in range(count)]
