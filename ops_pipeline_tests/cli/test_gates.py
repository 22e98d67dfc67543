"""The verb gates: the list, what it refuses, and what it says of a ledger."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ops_pipeline.cli import main
from ops_pipeline.cli.config import parse_changes
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.gates import GATES
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import opened
from ops_pipeline_tests.operations.what_if_market import fill, played
from ops_pipeline_tests.storage.clones import clone

Gates = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def traded(template: Settings) -> Settings:
    """An evening and a morning that the dispatcher has traded."""
    market = clone(template, "gates_market")
    with opened(market) as engine:
        fill(engine)
    return played(market, "gates_traded", {})


@pytest.fixture
def gates(
    traded: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Gates:
    """Run the verb on the traded database: exit code, what it printed, its lines of error."""
    server = traded.server
    assert server is not None
    place = f"{server.user}:{server.password}@{server.host}:{server.port}/{server.base_name}"
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{place}")
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["ops-pipeline", "gates", *words])
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        assert isinstance(code, int)
        return code, printed.out, printed.err.splitlines()

    return run


@pytest.mark.parametrize("words", [[], ["list"]])
def test_gates_are_listed_in_order_with_the_values_in_force(
    gates: Gates, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_DISPATCHER_CONFIG", '{"max_bar_age_seconds": 77}')
    code, out, errors = gates(*words)
    assert (code, errors) == (0, [])
    lines = [line.split() for line in out.splitlines()]
    named = [line[1] for line in lines if len(line) > 1 and line[0].isdecimal()]
    assert named == [gate.name for gate in GATES]
    assert "max_bar_age_seconds 77" in out
    assert "confidence_min 0.55" in out


def test_gates_are_listed_as_json(gates: Gates) -> None:
    found = json.loads(gates("--json", "--mode", "simulated")[1])
    assert [gate["number"] for gate in found] == list(range(1, 14))
    assert found[10]["settings"] == {"confidence_min": 0.7, "tier": "large"}
    assert [gate["for_closing"] for gate in found] == [gate.for_closing for gate in GATES]
    assert json.loads(gates("list", "--json", "--mode", "simulated")[1]) == found


def test_gates_need_no_database(gates: Gates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert gates()[0] == 0


def test_settings_that_are_refused_are_no_list(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_DISPATCHER_CONFIG", '{"confidence_min": 7}')
    code, out, errors = gates()
    assert (code, out, len(errors)) == (4, "", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "confidence_mini=0.6"], "confidence_mini: no such key"),
        (["--set", "confidence_min=7"], "between 0 and 1, not 7"),
        (["--set", "confidence_min=NaN"], "--set confidence_min: must be"),
        (["--set", "confidence_min=high"], "--set confidence_min: must be a number"),
        (["--set", "max_open_positions=" + "9" * 5_000], "--set max_open_positions: must be"),
        (["--set", "allowed_actions=" + "[" * 5_000], "--set allowed_actions: must be"),
        (["--set", "confidence_min"], "must be KEY=VALUE"),
        (["--set", "=0.5"], "must be KEY=VALUE"),
        (["--set", "confidence_min="], "must be KEY=VALUE"),
        (["--set", "confidence_min=0.5", "--set", "confidence_min=0.6"], "given twice"),
        (["--from", "2025-02-13", "--to", "2025-02-12"], "lies before"),
        (["--from", "yesterday"], "must be a day"),
        (["--from", "2025-03-01"], "never ran from 2025-03-01 on in mode replay"),
        (["--mode", "sandbox"], "mode sandbox has no database"),
    ],
)
def test_what_if_refuses_bad_words_in_one_line(gates: Gates, words: list[str], said: str) -> None:
    code, out, errors = gates("what-if", *words)
    assert (code, out, len(errors)) == (2, "", 1)
    assert said in errors[0]


def test_options_before_what_if_are_refused_and_not_forgotten(gates: Gates) -> None:
    code, out, errors = gates("--mode", "sandbox", "what-if")
    assert (code, out, len(errors)) == (2, "", 1)


def test_what_if_without_a_change_says_that_the_ledger_is_reproduced(gates: Gates) -> None:
    code, out, errors = gates("what-if")
    assert (code, errors) == (0, [])
    assert "mode replay, 2025-02-12 to 2025-02-13: the ledger is reproduced: " in out
    assert "what if" not in out


def test_what_if_prints_totals_and_flips(gates: Gates) -> None:
    code, out, errors = gates("what-if", "--set", "confidence_min=0.8", "--set", "tier=small")
    assert (code, errors) == (0, [])
    assert "the ledger is reproduced" in out
    assert "confidence_min: 0.6 -> 0.8" in out
    assert "tier: large -> small" in out
    found = json.loads(
        gates("what-if", "--set", "confidence_min=0.8", "--set", "tier=small", "--json")[1]
    )
    assert found["equal"] == found["decisions"]
    assert found["after"]["executed"] < found["before"]["executed"]
    lost = [flip for flip in found["flips"] if not flip["is_traded"]]
    assert {flip["gate"] for flip in lost} >= {"confidence"}
    shown = [line.split() for line in out.splitlines() if "no longer traded" in line]
    assert sum(int(line[4]) for line in shown) == len(lost)
    assert {line[0] for line in shown} == {flip["ticker"] for flip in lost}


def test_what_if_nothing_flips_says_so(gates: Gates) -> None:
    _, out, _ = gates("what-if", "--set", "processing_ttl_minutes=2")
    assert "no recommendation is traded now that was not" in out


def test_a_ledger_that_is_not_reproduced_makes_approximate_totals(
    gates: Gates, traded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops_pipeline.operations import what_if

    play = what_if.play
    monkeypatch.setattr(what_if, "play", lambda past, *how: play(replace(past, bars=[]), *how))
    code, out, _ = gates("what-if")
    assert code == 0
    assert "the ledger is not reproduced: " in out
    assert "these totals are approximate" in out


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("confidence_min=0.60", 0.6),
        ("confidence_min = 0.60", 0.6),
        ("max_open_positions=3", 3),
        ("allow_shorting=true", True),
        ("tier=small", "small"),
        ('tier="small"', "small"),
        ('allowed_actions=["BUY_STOCK"]', ["BUY_STOCK"]),
    ],
)
def test_a_value_is_json_and_else_text(text: str, value: object) -> None:
    assert list(parse_changes([text], "--set").values()) == [value]


def test_a_message_shows_no_control_characters() -> None:
    with pytest.raises(BadInput) as error:
        parse_changes(["\x1b[31m"], "--set")
    assert "\x1b" not in str(error.value)
