"""FinBERT's architecture, tiny and untrained, the whole way: load, classify, export, compare."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ops_pipeline.clients.classifiers import classifier_of
from ops_pipeline.clients.finbert import TorchClassifier
from ops_pipeline.clients.finbert_folder import FP32, INT8, VERIFIED, Source, sha256_of
from ops_pipeline.clients.finbert_onnx import OnnxClassifier
from ops_pipeline.clients.protocols import Classifier, Unscorable
from ops_pipeline.domain.errors import BadConfiguration, Unsafe
from ops_pipeline.domain.values import Model
from ops_pipeline.proofs.model import export as exporting
from ops_pipeline.proofs.model.export import Exported, export, parity_of
from ops_pipeline.proofs.model.headlines import headlines
from ops_pipeline.proofs.model.int8 import verify
from ops_pipeline.settings import Settings, load
from ops_pipeline_tests.clients.test_finbert import HOSTILE
from ops_pipeline_tests.clients.tiny_finbert import make_finbert, rename

# Seconds for torch alone; and they need the extra "finbert".
pytestmark = pytest.mark.slow
BACKENDS = ["finbert", "finbert-onnx"]


def quietly(_: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(make_finbert(tmp_path_factory.mktemp("hub") / "tiny"), "tiny", "local")


@pytest.fixture(scope="module")
def made(source: Source, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    folder = tmp_path_factory.mktemp("var") / "models" / "finbert-onnx"
    return folder, export(source, folder, quietly)


@pytest.fixture
def exported(made: tuple[Path, Exported], tmp_path: Path) -> Path:
    """An export of this test's own, in its own var folder."""
    return Path(shutil.copytree(made[0], tmp_path / "models" / "finbert-onnx"))


@pytest.fixture
def settings_of(source: Source, exported: Path, tmp_path: Path) -> Callable[[str], Settings]:
    variables = {"OPS_VAR_DIR": str(tmp_path), "OPS_FINBERT_PATH": str(source.folder)}
    return lambda backend: load("replay", {**variables, "OPS_SENTIMENT": backend})


def labels(classifier: Classifier, texts: list[str]) -> list[str]:
    return [score.label for score in classifier.classify(texts)]


def test_an_export_says_what_its_source_says(
    made: tuple[Path, Exported], source: Source, settings_of: Callable[[str], Settings]
) -> None:
    parity = made[1].parity
    assert (parity.headlines, parity.is_kept) == (48, True)
    assert parity.max_difference < 1e-4
    texts = headlines(100)
    first, second = (classifier_of(settings_of(name)).classify(texts) for name in BACKENDS)
    assert [score.signed for score in first] == pytest.approx(
        [score.signed for score in second], abs=1e-4
    )
    assert len({score.label for score in first}) > 1
    assert sorted(path.name for path in made[0].iterdir() if "sha256" not in path.name) == [
        "config.json",
        "manifest.json",
        "model.int8.onnx",
        "model.onnx",
        "tokenizer.json",
    ]


@pytest.mark.parametrize(
    ("backend", "weights"), [("finbert", "model.safetensors"), ("finbert-onnx", FP32)]
)
def test_a_model_is_known_by_the_hash_of_its_weights(
    source: Source,
    exported: Path,
    settings_of: Callable[[str], Settings],
    backend: str,
    weights: str,
) -> None:
    folder = source.folder if backend == "finbert" else exported
    found = classifier_of(settings_of(backend)).model
    revision = f"local-{sha256_of(source.folder / 'model.safetensors')[:12]}"
    assert found == Model(backend, "tiny", revision, "fp32", sha256_of(folder / weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_text_is_scored(backend: str, settings_of: Callable[[str], Settings]) -> None:
    found = classifier_of(settings_of(backend)).classify(HOSTILE)
    for score in found:
        assert score.positive + score.negative + score.neutral == pytest.approx(1, abs=1e-5)
    assert [text[:4] for text, s in zip(HOSTILE, found, strict=True) if s.is_truncated] == [
        "word",
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_text_scores_the_same_whoever_stands_beside_it(
    backend: str, settings_of: Callable[[str], Settings]
) -> None:
    classifier, texts = classifier_of(settings_of(backend)), headlines(40)
    alone = [classifier.classify([text])[0].signed for text in texts]
    together = [score.signed for score in classifier.classify(texts)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert classifier.classify([]) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_order_of_labels_changes_names_and_not_numbers(
    backend: str, source: Source, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(source.folder, tmp_path / "other"))
    rename(other, {"0": "Neutral", "1": "Positive", "2": "Negative"})
    settings = load(
        "replay",
        {
            "OPS_VAR_DIR": str(tmp_path),
            "OPS_FINBERT_PATH": str(other),
            "OPS_SENTIMENT": backend,
        },
    )
    if backend == "finbert-onnx":
        export(Source(other, "other", "local"), tmp_path / "models" / backend, quietly)
    plain = TorchClassifier(source).classify(headlines(10))
    for ours, theirs in zip(classifier_of(settings).classify(headlines(10)), plain, strict=True):
        assert (ours.neutral, ours.positive, ours.negative) == pytest.approx(
            (theirs.positive, theirs.negative, theirs.neutral), abs=1e-4
        )


def test_int8_that_disagrees_is_refused_and_not_used(exported: Path) -> None:
    found = verify(exported, headlines(500))
    # Random weights of this size: the nearest label changes more often than 2 in 100 times.
    assert (found.is_enough, found.agreement < 0.98) == (False, True)
    assert not (exported / VERIFIED).exists()
    assert OnnxClassifier(exported).model.precision == "fp32"


def test_int8_that_agrees_is_used_until_its_weights_change(exported: Path) -> None:
    # The fp32 graph agrees with itself.
    shutil.copyfile(exported / FP32, exported / INT8)
    manifest = json.loads((exported / "manifest.json").read_text("utf-8"))
    manifest["files"][INT8] = sha256_of(exported / INT8)
    (exported / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert not verify(exported, headlines(499)).is_enough
    assert OnnxClassifier(exported).model.precision == "fp32"
    found = verify(exported, headlines(500))
    assert (found.agreement, found.mean_difference) == (1.0, 0.0)
    assert OnnxClassifier(exported).model.precision == "int8"
    (exported / INT8).write_bytes((exported / INT8).read_bytes() + b"\0")
    assert OnnxClassifier(exported).model.precision == "fp32"


def test_a_graph_that_reads_the_mask_alone_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TorchClassifier(source, threads=1)
    read = [model.reader.read(text)[0] for text in headlines(48)]

    def blind(batch: list[list[int]]) -> list[list[float]]:
        return model.logits_of([[7] * len(ids) for ids in batch])

    found = parity_of(read, model.logits_of, blind)
    assert (found.is_kept, found.twins) == (False, pytest.approx(0, abs=1e-6))
    assert not parity_of(read, blind, blind).is_kept
    folder = tmp_path / "finbert-onnx"
    folder.mkdir()
    (folder / "kept").write_text("what stood here", encoding="utf-8")
    monkeypatch.setattr(exporting, "MAX_DIFFERENCE", 0.0)
    with pytest.raises(Unsafe, match="refused: largest difference of logits"):
        export(source, folder, quietly)
    assert [path.name for path in tmp_path.iterdir()] == ["finbert-onnx"]
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_nan_in_the_weights_is_an_error_of_each_text(source: Source, tmp_path: Path) -> None:
    import torch

    classifier = TorchClassifier(source)
    with torch.no_grad():
        classifier.network.classifier.bias[0] = float("nan")
    with pytest.raises(Unscorable, match="2 of 2"):
        classifier.classify(["one", "two words"])


def test_an_encoder_without_a_classification_head_is_refused(
    source: Source, tmp_path: Path
) -> None:
    from transformers import AutoModel

    folder = Path(shutil.copytree(source.folder, tmp_path / "encoder"))
    AutoModel.from_pretrained(str(folder)).save_pretrained(folder)
    with pytest.raises(BadConfiguration, match=r"lack classifier\.bias"):
        TorchClassifier(Source(folder, "encoder", "local")).classify(["text"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_weights_are_an_error_that_says_what_to_do(
    backend: str, source: Source, exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(source.folder, tmp_path / "broken"))
    broken = {"finbert": folder / "model.safetensors", "finbert-onnx": exported / FP32}[backend]
    broken.write_bytes(b"not weights")
    settings = load(
        "replay",
        {"OPS_VAR_DIR": str(tmp_path), "OPS_SENTIMENT": backend}
        | ({"OPS_FINBERT_PATH": str(folder)} if backend == "finbert" else {}),
    )
    with pytest.raises(BadConfiguration) as refused:
        classifier_of(settings).classify(["text"])
    assert "ops-pipeline model" in refused.value.hint
    assert "\n" not in str(refused.value)


def test_an_export_of_another_model_is_not_taken_for_the_one_that_is_named(
    exported: Path, tmp_path: Path
) -> None:
    other = make_finbert(tmp_path / "other", seed=8)
    variables = {"OPS_VAR_DIR": str(tmp_path), "OPS_FINBERT_PATH": str(other)}
    with pytest.raises(BadConfiguration, match="not what was exported"):
        classifier_of(load("simulated", variables))
