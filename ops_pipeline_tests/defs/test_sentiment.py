"""What happens to texts that wait: many, slow or poisonous ones, and a model that is not there."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.clients.lexicon import LexiconClassifier
from ops_pipeline.clients.protocols import Unscorable
from ops_pipeline.defs.assets import sentiment
from ops_pipeline.defs.checks import acceptance
from ops_pipeline.defs.checks.sentiment import sentiment_is_by_a_model
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.sentiment import FOR_PRODUCTION, LINKED, SCORED
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.stories import KnownEntry
from ops_pipeline.domain.values import Model, Score
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.news import insert_entries
from ops_pipeline_tests.builders import an_entry
from ops_pipeline_tests.defs.world import World, open_world

GOOD = Score(0.9, 0.05, 0.05)
WAITING = """
    select count(*) from news_items
    where text_hash not in (select text_hash from news_sentiments)"""


class Scripted:
    """A model that does with each text what a test says."""

    model = Model("finbert-onnx", "scripted", "1", "fp32", "weights")

    def __init__(self, act: Callable[[str], None] = lambda _: None) -> None:
        self.act = act
        self.read: list[list[str]] = []

    def classify(self, texts: Sequence[str]) -> list[Score]:
        self.read.append(list(texts))
        for text in texts:
            self.act(text)
        return [GOOD for _ in texts]


class Ended(BaseException):
    """The process ends here."""


@pytest.fixture
def live(template: Settings) -> Iterator[World]:
    with open_world(template, Mode.SANDBOX) as world:
        yield world


def tell(world: World, count: int, title: str = "Story") -> None:
    at = clock() - 10 * MINUTE
    told = [
        KnownEntry(
            an_entry(
                title=f"{title} {n}",
                entry_id=f"{title} {n}",
                link=f"https://x/{title}/{n}",
                published_at=at,
            ),
            at,
        )
        for n in range(count)
    ]
    with world.pipeline.engine.begin() as connection:
        insert_entries(connection, told, origin="live")


def run(world: World, model: Any) -> dict[str, Any]:
    world.pipeline.__dict__["classifier"] = model
    newest = clock() - 2 * MINUTE
    return world.stages(newest, newest, ["sentiment"])["sentiment"]


def test_a_text_that_cannot_be_scored_harms_no_other_and_is_given_up(live: World) -> None:
    def refuse(text: str) -> None:
        if text.startswith("Poison"):
            raise ValueError("no")

    tell(live, 70)
    tell(live, 1, "Poison")
    said = run(live, Scripted(refuse))
    assert (said["rows"], said["waiting"], said["given_up"]) == (70, 1, 0)
    for _ in range(2):
        said = run(live, Scripted(refuse))
    assert (said["rows"], said["waiting"], said["given_up"]) == (0, 0, 1)
    assert live.rows("select attempts, reason from news_scoring_attempts") == [
        {"attempts": 3, "reason": "ValueError: no"}
    ]
    assert run(live, model := Scripted())["rows"] == 0
    assert model.read == []


def test_a_text_without_a_number_is_given_up_and_those_beside_it_are_kept(live: World) -> None:
    class Numberless(Scripted):
        def classify(self, texts: Sequence[str]) -> list[Score]:
            if any(text.startswith("Poison") for text in texts):
                raise Unscorable([None if text.startswith("Poison") else GOOD for text in texts])
            return super().classify(texts)

    tell(live, 5)
    tell(live, 1, "Poison")
    for _ in range(3):
        said = run(live, Numberless())
    assert (said["waiting"], said["given_up"]) == (0, 1)
    assert live.value("select count(*) from news_sentiments") == 5
    assert live.value("select reason from news_scoring_attempts") == "the model gave no number"


def test_a_text_that_ends_the_process_is_met_alone_and_given_up(live: World) -> None:
    def end(text: str) -> None:
        if text.startswith("Poison"):
            raise Ended

    tell(live, 10)
    tell(live, 1, "Poison")
    for _ in range(3):
        with pytest.raises(Ended):
            run(live, Scripted(end))
    said = run(live, Scripted(end))
    assert (said["waiting"], said["given_up"]) == (0, 1)
    assert live.value(WAITING) == 1
    assert live.value("select reason from news_scoring_attempts") == "the process ended"


def test_a_burst_is_spread_over_minutes_and_drains(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentiment, "SCORING_SECONDS", 0.3)
    tell(live, 200)
    slow = Scripted(lambda _: time.sleep(0.004))
    left = []
    while not left or left[-1]:
        left.append(run(live, slow)["waiting"])
        assert len(left) < 10
    assert left[0] > 0
    assert left == sorted(left, reverse=True)
    assert live.value("select count(*) from news_sentiments") == 200
    texts = [text for group in slow.read for text in group]
    assert len(texts) == len(set(texts)) == 200


def test_where_nothing_waits_the_model_reads_nothing(live: World) -> None:
    tell(live, 3)
    run(live, Scripted())
    again = Scripted()
    assert run(live, again)["rows"] == 0
    assert again.read == []


def test_a_model_that_is_not_there_fails_the_stage_and_costs_no_attempt(live: World) -> None:
    def missing(_: str) -> None:
        raise BadConfiguration("the model is not there", "run: ops-pipeline model export")

    tell(live, 3)
    for _ in range(4):
        with pytest.raises(BadConfiguration, match="not there"):
            run(live, Scripted(missing))
    assert live.value("select count(*) from news_sentiments") == 0
    assert run(live, Scripted())["rows"] == 3


def checks(world: World) -> dict[str, dg.AssetCheckResult | dg.AssetCheckEvaluation]:
    by_model = sentiment_is_by_a_model(pipeline=world.pipeline)
    assert isinstance(by_model, dg.AssetCheckResult)
    found = acceptance.evaluate(world.pipeline, clock(), [SCORED, LINKED])
    return {FOR_PRODUCTION: by_model, **{each.check_name: each for each in found}}


def test_the_check_tells_what_waits_and_what_was_given_up(live: World) -> None:
    tell(live, 19)
    run(live, Scripted())
    told = checks(live)["news_are_scored"]
    assert (told.passed, told.description) == (True, "19 of 19 scored, 0 wait")
    tell(live, 2, "Later")
    told = checks(live)["news_are_scored"]
    assert (told.passed, told.description) == (False, "19 of 21 scored, 2 wait")


def test_the_check_tells_how_many_stories_name_a_ticker(live: World) -> None:
    tell(live, 30)
    run(live, Scripted())
    told = checks(live)["news_name_tickers"]
    assert (told.passed, told.description) == (False, "0 of 30 name a ticker")
    tell(live, 10, "Apple")
    run(live, Scripted())
    told = checks(live)["news_name_tickers"]
    assert (told.passed, told.description) == (True, "10 of 40 name a ticker")


def test_no_news_is_no_problem(live: World) -> None:
    run(live, Scripted())
    assert checks(live)["news_are_scored"].passed
    assert checks(live)["news_name_tickers"].passed


@pytest.mark.parametrize(
    ("mode", "is_fine"), [(Mode.SANDBOX, True), (Mode.SIMULATED, False), (Mode.ALPACA_PAPER, False)]
)
def test_a_word_list_is_an_error_where_prices_are_real(
    live: World,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    is_fine: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(live.pipeline, "mode", mode)
    live.pipeline.__dict__["classifier"] = LexiconClassifier()
    told = checks(live)["sentiment_is_by_a_model"]
    assert told.passed == is_fine
    assert is_fine or told.severity is dg.AssetCheckSeverity.ERROR
    live.pipeline.__dict__["classifier"] = Scripted()
    assert checks(live)["sentiment_is_by_a_model"].passed
