"""What holds of FinBERT without its weights: batches, labels by name, hashes, what is refused."""

import json
import subprocess
import sys
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.clients.classifiers import classifier_of
from ops_pipeline.clients.finbert_batches import (
    BATCH_TEXTS,
    BATCH_TOKENS,
    MAX_TOKENS,
    Ids,
    Reader,
    batches,
    padded,
    score_of_logits,
    scores_of,
)
from ops_pipeline.clients.finbert_folder import FP32, INT8, VERIFIED, is_verified, labels_of
from ops_pipeline.clients.finbert_folder import sha256_of as hash_of
from ops_pipeline.clients.finbert_onnx import OnnxClassifier
from ops_pipeline.clients.lexicon import LexiconClassifier
from ops_pipeline.clients.protocols import Unscorable
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import load

LABELS = ("positive", "negative", "neutral")
HOSTILE = [
    "",
    " \t\n" * 50,
    "x" * 100_000,
    "word " * 20_000,
    "\U0001f680" * 300,
    "\x00\x01\x07\x7f\u200b\u202e headline \ufeff",
    "株価が急騰、最高益を更新",
    "أرباح قياسية للشركة",
    "<b>Shares</b> jump <script>alert(1)</script>&nbsp;",
    "cut within an emoji \ud83d",
    "[CLS] [SEP] [MASK] [PAD]",
]


class Letters:
    """Stands for a tokenizer: one token for each letter."""

    def no_padding(self) -> None: ...

    def enable_truncation(self, length: int) -> None:
        self.length = length

    def encode(self, text: str) -> "Letters":
        self.ids = [ord(letter) for letter in text][: self.length]
        self.overflowing = [text[self.length :]] if len(text) > self.length else []
        return self


def classify(texts: list[str], logits_of: object) -> list[object]:
    return list(scores_of(texts, Reader(Letters()), logits_of, LABELS))  # type: ignore[arg-type]


@given(st.lists(st.integers(1, MAX_TOKENS), max_size=300))
def test_batches_hold_each_text_once_and_are_bounded_by_texts_and_by_padded_tokens(
    lengths: list[int],
) -> None:
    found = list(batches(lengths))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) <= BATCH_TEXTS
        assert len(batch) * max(lengths[index] for index in batch) <= BATCH_TOKENS


def test_a_batch_is_padded_to_its_longest_text_and_the_mask_says_where() -> None:
    assert padded([[5, 6, 7], [8]]) == ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    assert padded([[5]], 3) == ([[5, 0, 0]], [[1, 0, 0]])


def test_scores_come_in_the_order_of_the_texts_though_batches_do_not() -> None:
    texts = ["bbb", "a", "cc", ""]
    wanted = [score_of_logits([len(text), 0.0, 1.0], LABELS) for text in texts]
    assert classify(texts, lambda batch: [[len(ids), 0.0, 1.0] for ids in batch]) == wanted


def test_what_is_longer_than_the_model_reads_is_cut_and_says_so() -> None:
    seen: list[int] = []

    def logits_of(batch: list[Ids]) -> list[list[float]]:
        seen.extend(len(ids) for ids in batch)
        return [[0.0, 0.0, 0.0] for _ in batch]

    found = classify(["a" * 128, "a" * 129], logits_of)
    assert [score.is_truncated for score in found] == [False, True]  # type: ignore[attr-defined]
    assert seen == [128, 128]


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_a_text_without_a_number_is_refused_and_spoils_no_other(bad: float) -> None:
    def logits_of(batch: list[Ids]) -> list[list[float]]:
        # As an int8 graph, whose scale is over the whole batch.
        is_spoiled = any(ord("!") in ids for ids in batch)
        return [[bad if is_spoiled else 2.0, 1.0, 0.0] for _ in batch]

    with pytest.raises(Unscorable, match="no number for 1 of 3 texts") as refused:
        classify(["fine", "bad!", "good"], logits_of)
    good = score_of_logits([2.0, 1.0, 0.0], LABELS)
    assert refused.value.scores == [good, None, good]


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_any_logits_become_three_probabilities_that_add_up_to_one(logits: list[float]) -> None:
    score = score_of_logits(logits, LABELS)
    assert score is not None
    assert score.positive + score.negative + score.neutral == pytest.approx(1, abs=1e-9)
    assert min(score.positive, score.negative, score.neutral) >= 0


def test_a_row_of_another_width_is_no_score() -> None:
    with pytest.raises(ValueError, match="argument"):
        score_of_logits([1.0, 2.0], LABELS)


def config(folder: Path, labels: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"id2label": labels}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "positive", "1": "negative", "2": "neutral"},
        {"0": "Positive", "1": "Neutral", "2": "Negative"},
        {"2": "positive", "0": "negative", "1": "neutral"},
    ],
)
def test_labels_are_read_by_name_whatever_their_order(
    tmp_path: Path, labels: dict[str, str]
) -> None:
    found = labels_of(config(tmp_path, labels))
    assert found == tuple(labels[str(number)].lower() for number in range(3))


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        {"0": "bearish", "1": "bullish", "2": "neutral"},
        {"0": "positive", "1": "positive", "2": "neutral"},
        {"0": "positive", "1": "negative"},
        {"0": "positive", "1": "negative", "2": "neutral", "3": "mixed"},
        {"1": "positive", "2": "negative", "3": "neutral"},
        ["positive", "negative", "neutral"],
        None,
    ],
)
def test_labels_of_other_names_are_refused(tmp_path: Path, labels: object) -> None:
    with pytest.raises(BadConfiguration, match="not positive, negative, neutral") as refused:
        labels_of(config(tmp_path, labels))
    assert "id2label" in refused.value.hint


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / FP32
    path.write_bytes(b"one")
    first = hash_of(path)
    beside = tmp_path / f"{FP32}.sha256.json"
    told = json.loads(beside.read_text("utf-8"))
    beside.write_text(json.dumps({**told, "sha256": "remembered"}), encoding="utf-8")
    assert hash_of(path) == "remembered"
    path.write_bytes(b"another")
    assert hash_of(path) not in (first, "remembered")
    beside.write_text("{", encoding="utf-8")
    path.write_bytes(b"one")
    assert hash_of(path) == first


def test_int8_is_verified_for_the_very_weights_only(tmp_path: Path) -> None:
    for name in (FP32, INT8):
        (tmp_path / name).write_bytes(name.encode())
    assert not is_verified(tmp_path)
    record = {name: hash_of(tmp_path / name) for name in (FP32, INT8)}
    (tmp_path / VERIFIED).write_text(json.dumps(record), encoding="utf-8")
    assert is_verified(tmp_path)
    for name in (FP32, INT8):
        (tmp_path / name).write_bytes(b"other weights")
        assert not is_verified(tmp_path)
        (tmp_path / name).write_bytes(name.encode())


@pytest.mark.parametrize(
    ("backend", "told", "hint"),
    [
        ("finbert-onnx", "there is no exported model", "ops-pipeline model export"),
        ("finbert", "there is no model of ProsusAI/finbert", "ops-pipeline model pull"),
    ],
)
@pytest.mark.parametrize("mode", ["replay", "sandbox", "simulated", "alpaca-paper"])
def test_a_missing_model_is_an_error_that_says_what_to_do(
    tmp_path: Path, mode: str, backend: str, told: str, hint: str
) -> None:
    settings = load(mode, {"OPS_VAR_DIR": str(tmp_path), "OPS_SENTIMENT": backend})
    with pytest.raises(BadConfiguration, match=told) as refused:
        classifier_of(settings)
    assert hint in refused.value.hint
    assert "\n" not in f"{refused.value}{refused.value.hint}"


def test_a_folder_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    (tmp_path / FP32).write_bytes(b"weights from elsewhere")
    with pytest.raises(BadConfiguration, match="no manifest"):
        OnnxClassifier(tmp_path)
    (tmp_path / "manifest.json").write_text('{"files": {}}', encoding="utf-8")
    with pytest.raises(BadConfiguration, match="not the one that was exported"):
        OnnxClassifier(tmp_path)


def test_the_lexicon_is_chosen_where_it_is_configured(tmp_path: Path) -> None:
    settings = load("simulated", {"OPS_VAR_DIR": str(tmp_path), "OPS_SENTIMENT": "lexicon"})
    assert isinstance(classifier_of(settings), LexiconClassifier)


@pytest.mark.parametrize(
    "module",
    [pytest.param("ops_pipeline.definitions", marks=pytest.mark.slow), "ops_pipeline.cli"],
)
def test_nothing_heavy_is_imported_by(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    heavy = {"torch", "transformers", "onnxruntime", "onnx", "tokenizers", "huggingface_hub"}
    assert heavy & set(done.stdout.split()) == set()
