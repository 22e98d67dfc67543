"""The verb model on a tiny model: what it prints, what it leaves on disk, how it ends."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ops_pipeline.cli import main
from ops_pipeline.proofs.model.headlines import headlines
from ops_pipeline_tests.clients.tiny_finbert import make_finbert

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finbert(tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("OPS_FINBERT_PATH", raising=False)
    monkeypatch.delenv("OPS_SENTIMENT", raising=False)

    def run_verb(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ops-pipeline", "model", *words])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run_verb


def test_without_a_model_each_verb_says_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb, hint in (
        ("export", "model pull"),
        ("verify", "model export"),
    ):
        code, _, told = run(verb)
        assert (code, told.count("\n")) == (4, 1)
        assert f"run: ops-pipeline {hint}" in told
    monkeypatch.setenv("OPS_SENTIMENT", "finbert-onnx")
    code, told, _ = run("list")
    assert (code, "there is no exported model" in told) == (1, True)


def test_pull_without_a_network_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    code, _, told = run("pull")
    assert (code, told.count("\n")) == (3, 1)
    assert "cannot be pulled" in told
    assert "OPS_FINBERT_PATH" in told


def test_from_a_folder_to_a_judged_model(
    run: Run, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_FINBERT_PATH", str(hub))
    code, told, _ = run("pull")
    assert code == 4
    code, told, _ = run("export", "--json")
    made = json.loads(told)
    assert (code, made["name"], made["parity"]["max_difference"] < 1e-3) == (0, "tiny", True)

    code, told, _ = run("verify", "--json")
    found = json.loads(told)
    assert (code, found["int8"]["headlines"], found["labelled"]) == (1, 1_000, [])
    assert "REFUSED: fp32 stays" in run("verify")[1]

    monkeypatch.setenv("OPS_SENTIMENT", "finbert-onnx")
    code, told, _ = run("list", "--json")
    listed = json.loads(told)["models"]
    assert code == 0
    assert [(each["model"]["precision"], each["is_active"]) for each in listed[1:]] == [
        ("fp32", False),
        ("fp32", True),
        ("int8", False),
    ]
    assert listed[3]["is_verified"] is False

    rows = "".join(f'"{text}",{n % 3}\n' for n, text in enumerate(headlines(60)))
    path = tmp_path / "labelled.csv"
    path.write_text(f"text,label\n{rows}", encoding="utf-8")
    code, told, _ = run("verify", "--data", str(path), "--json")
    assert code == 2
    names = "0=negative,1=positive,2=neutral"
    code, told, _ = run("verify", "--data", str(path), "--labels", names, "--json")
    found = json.loads(told)
    assert (code, found["int8"]) == (0, None)
    assert found["not_judged"] == "500 texts are needed, and there are 60"
    assert [each["model"].split(" (")[0] for each in found["labelled"]] == [
        "tiny",
        "always negative",
        "vaderSentiment",
    ]
