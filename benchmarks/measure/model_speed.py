"""How many headlines one core scores in a second, by each way, in a process of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from benchmarks.measure.memory import peak_mb
from ops_pipeline.clients.finbert import TorchClassifier
from ops_pipeline.clients.finbert_folder import Source
from ops_pipeline.clients.finbert_onnx import OnnxClassifier
from ops_pipeline.domain.values import Score

NAIVE = "transformers pipeline"
PADDED = "padded to 512"
PADDED_TO = 512
Classify = Callable[[Sequence[str]], list[Score]]


@dataclass(frozen=True)
class Measured:
    """One way, on one thread, in seconds of CPU time.

    `start_seconds` are imports, loading and the first text; `from_naive` is the largest difference
    of a signed score from the naive way's, over the headlines that both have scored.
    """

    way: str
    headlines: int
    seconds: float
    start_seconds: float
    peak_mb: float
    signed: tuple[float, ...]
    from_naive: float | None = None

    @property
    def per_second(self) -> float:
        """Headlines for each second of CPU time."""
        return self.headlines / self.seconds


def ways() -> list[str]:
    """What is measured on this machine, the naive way first."""
    return [name for name in WAYS if name != "torch bf16" or has_bf16()]


def measure(way: str, source: Source, folder: Path, texts: Sequence[str]) -> Measured:
    """Score texts in this process, which should have nothing loaded.

    Raises:
        BadConfiguration: the model, its export or the extra `finbert` is missing.
    """
    chosen = texts[: SHARE.get(way, len(texts))]
    began = process_time()
    classify = WAYS[way](source, folder)
    classify(chosen[:1])
    ready = process_time()
    scores = classify(chosen)
    done = process_time()
    signed = tuple(score.signed for score in scores)
    return Measured(way, len(chosen), done - ready, ready - began, peak_mb(), signed)


def middle(rounds: Sequence[Measured]) -> Measured:
    """The median of each figure over the rounds of one way."""
    return replace(
        rounds[0],
        seconds=median(one.seconds for one in rounds),
        start_seconds=median(one.start_seconds for one in rounds),
        peak_mb=median(one.peak_mb for one in rounds),
    )


def beside_naive(found: Sequence[Measured]) -> list[Measured]:
    """Each way with how far its scores are from those of the first."""
    naive = found[0].signed
    return [
        replace(one, from_naive=max(abs(a - b) for a, b in zip(one.signed, naive, strict=False)))
        for one in found
    ]


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; elsewhere it is slower than fp32."""
    told = Path("/proc/cpuinfo")
    flags = told.read_text(encoding="utf-8") if told.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _naive(source: Source, _: Path) -> Classify:
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    name = str(source.folder)
    pipe = pipeline("text-classification", model=name, tokenizer=name, device="cpu", top_k=None)
    return lambda texts: [_score(pipe([text])[0]) for text in texts]


def _score(answer: Sequence[dict[str, Any]]) -> Score:
    shares = {str(part["label"]).lower(): float(part["score"]) for part in answer}
    return Score(shares["positive"], shares["negative"], shares["neutral"])


def _torch(source: Source, _: Path) -> Classify:
    return TorchClassifier(source, threads=1).classify


def _bf16(source: Source, _: Path) -> Classify:
    import torch

    classifier = TorchClassifier(source, threads=1)
    classifier.network.to(torch.bfloat16)
    return classifier.classify


def _onnx(_: Source, folder: Path) -> Classify:
    return OnnxClassifier(folder, "fp32", threads=1).classify


def _int8(_: Source, folder: Path) -> Classify:
    return OnnxClassifier(folder, "int8", threads=1).classify


def _padded(source: Source, _: Path) -> Classify:
    """One by one, each padded to what the model can read at most."""
    classifier = TorchClassifier(source, threads=1)
    plain = classifier.logits_of

    def logits_of(batch: list[list[int]], pad_to: int = PADDED_TO) -> list[list[float]]:
        return plain(batch, pad_to)

    classifier.logits_of = logits_of  # type: ignore[method-assign] # this one object's
    return lambda texts: [classifier.classify([text])[0] for text in texts]


WAYS: dict[str, Callable[[Source, Path], Classify]] = {
    NAIVE: _naive,
    PADDED: _padded,
    "torch fp32": _torch,
    "torch bf16": _bf16,
    "ONNX fp32": _onnx,
    "ONNX int8": _int8,
}
# Those that are slow, and known to be, have fewer headlines to score.
SHARE = {NAIVE: 64, PADDED: 4}
