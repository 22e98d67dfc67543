import pytest

from ops_pipeline.domain import errors
from ops_pipeline.domain.features import WINDOWS
from ops_pipeline.domain.stages import DATA_STAGES, DISPATCH, SERVICES, stage_of_service
from ops_pipeline.domain.watchlist import DUE_EVERY_MINUTES

SERVICE_NAMES = [
    "rss-ingest",
    "classifier-worker",
    "telemetry-1m",
    "feature-computer-1m",
    "watchlist-engine-5m",
    "signal-engine-1m",
    "dispatcher",
]


def test_the_services_are_those_of_the_runbook() -> None:
    assert [stage.service for stage in SERVICES] == SERVICE_NAMES


def test_every_stage_but_dispatch_is_a_data_stage() -> None:
    assert set(DATA_STAGES) == set(SERVICES) - {DISPATCH}


@pytest.mark.parametrize("stage", SERVICES, ids=lambda stage: stage.name)
def test_a_stage_is_found_by_its_word_and_by_its_service(stage: object) -> None:
    assert stage_of_service(stage.name) is stage  # type: ignore[attr-defined]
    assert stage_of_service(stage.service) is stage  # type: ignore[attr-defined]


def test_an_unknown_service_is_no_stage() -> None:
    assert stage_of_service("nonsense") is None


def test_the_watchlist_stage_is_due_as_often_as_its_rule_says() -> None:
    stage = stage_of_service("watchlist")
    assert stage is not None
    assert stage.minutes == DUE_EVERY_MINUTES


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("OperatorError", 1),
        ("BadInput", 2),
        ("NotRunning", 3),
        ("BadConfiguration", 4),
        ("TimedOut", 5),
        ("Unsafe", 6),
    ],
)
def test_an_operator_error_has_its_own_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_an_operator_error_carries_message_and_hint() -> None:
    error = errors.BadInput("no such file", "try another")
    assert (str(error), error.hint) == ("no such file", "try another")


def test_an_operator_error_needs_no_hint() -> None:
    assert errors.Unsafe("refused").hint == ""


def test_the_long_windows_hold_the_short_ones() -> None:
    assert WINDOWS["sma_short"] < WINDOWS["sma_long"] == WINDOWS["min_bars"]
    assert WINDOWS["recent_returns"] < WINDOWS["baseline_returns"] < WINDOWS["lookback_bars"]
