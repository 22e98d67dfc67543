"""The int8 model beside the fp32 one: the gate that it has to pass before it may be used."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ops_pipeline.clients.finbert_folder import FP32, INT8, VERIFIED, sha256_of, write_json
from ops_pipeline.clients.finbert_onnx import OnnxClassifier
from ops_pipeline.domain.values import Score

MIN_HEADLINES = 500
MIN_AGREEMENT = 0.98
MAX_MEAN_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Agreement:
    """How often two models give a text the same label, and how far their probabilities are apart.

    Differences are of single probabilities, between 0 and 1: their mean, and the largest.
    """

    headlines: int
    agreement: float
    mean_difference: float
    max_difference: float

    @property
    def is_enough(self) -> bool:
        """Whether the smaller model may be used."""
        return (
            self.headlines >= MIN_HEADLINES
            and self.agreement >= MIN_AGREEMENT
            and self.mean_difference <= MAX_MEAN_DIFFERENCE
        )


def verify(folder: Path, texts: Sequence[str]) -> Agreement:
    """Score texts with both graphs; keep, or take back, the leave to use int8.

    The last verdict counts: a refusal removes the record of an earlier pass.

    Raises:
        BadConfiguration: there is no exported model.
        Unscorable: one of the graphs has no number for some text.
    """
    record = folder / VERIFIED
    fp32, int8 = OnnxClassifier(folder, "fp32"), OnnxClassifier(folder, "int8")
    found = agreement_of(fp32.classify(texts), int8.classify(texts))
    if found.is_enough:
        weights = {name: sha256_of(folder / name) for name in (FP32, INT8)}
        write_json(record, {**weights, **asdict(found)})
    else:
        with suppress(FileNotFoundError):
            record.unlink()
    return found


def agreement_of(first: Sequence[Score], second: Sequence[Score]) -> Agreement:
    """Two models' scores of the same texts, at least one."""
    apart = [
        abs(one - other)
        for a, b in zip(first, second, strict=True)
        for one, other in (
            (a.positive, b.positive),
            (a.negative, b.negative),
            (a.neutral, b.neutral),
        )
    ]
    same = sum(a.label == b.label for a, b in zip(first, second, strict=True))
    return Agreement(len(first), same / len(first), sum(apart) / len(apart), max(apart))
