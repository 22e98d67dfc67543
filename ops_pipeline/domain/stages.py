"""The stages in the order in which data flows: the one place where the flow is spelled."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage: its word, the runbook's name for the service, and how often it is due."""

    name: str
    service: str
    minutes: int


NEWS = Stage("news", "rss-ingest", 1)
SENTIMENT = Stage("sentiment", "classifier-worker", 1)
BARS = Stage("bars", "telemetry-1m", 1)
FEATURES = Stage("features", "feature-computer-1m", 1)
WATCHLIST = Stage("watchlist", "watchlist-engine-5m", 5)
SIGNALS = Stage("signals", "signal-engine-1m", 1)
DISPATCH = Stage("dispatch", "dispatcher", 1)

DATA_STAGES = (NEWS, BARS, SENTIMENT, FEATURES, WATCHLIST, SIGNALS)
SERVICES = (NEWS, SENTIMENT, BARS, FEATURES, WATCHLIST, SIGNALS, DISPATCH)
# Who stands on what a stage has decided for a minute, in that minute or in a later one.
READERS = {WATCHLIST: (WATCHLIST, SIGNALS), SIGNALS: (SIGNALS,)}
# The runbook names it beside them; it is a process of its own, and no tick has part in it.
TRADE_STREAM = "trade-stream"


def stage_of_service(name: str) -> Stage | None:
    """The stage that a runbook service name, or a stage word, stands for."""
    return next((stage for stage in SERVICES if name in (stage.service, stage.name)), None)
