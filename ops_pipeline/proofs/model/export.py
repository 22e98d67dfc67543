"""FinBERT as an ONNX graph: made by torch, kept only where it says what torch says."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from math import isnan, nan
from pathlib import Path
from typing import Any

from ops_pipeline.clients.finbert import EXTRA, TorchClassifier
from ops_pipeline.clients.finbert_batches import Ids, Logits, padded
from ops_pipeline.clients.finbert_folder import (
    CONFIG,
    FP32,
    INT8,
    MANIFEST,
    TOKENIZER,
    Source,
    labels_of,
    sha256_of,
    write_json,
)
from ops_pipeline.clients.finbert_onnx import OnnxClassifier
from ops_pipeline.domain.errors import BadConfiguration, Unsafe
from ops_pipeline.proofs.model.headlines import headlines

HEADLINES = 48
# fp32 sums in another order: differences are of the size 1e-6, and a wrong graph is far from that.
MAX_DIFFERENCE = 1e-3
# A graph that lost one of its inputs gives sentences of equal length equal logits, to the last bit.
MIN_DIFFERENCE = 1e-6
Step = Callable[[str], None]


@dataclass(frozen=True)
class Parity:
    """How far two graphs are apart, in logits, over the headlines that both read.

    `twins` is by how little two sentences of equal token length differ in the second graph; None
    where there are no such two.
    """

    headlines: int
    max_difference: float
    twins: float | None

    @property
    def is_kept(self) -> bool:
        """Whether the second graph may stand for the first."""
        is_close = self.max_difference < MAX_DIFFERENCE  # False for NaN
        return is_close and self.twins is not None and self.twins > MIN_DIFFERENCE


@dataclass(frozen=True)
class Exported:
    """What was written, with SHA-256 of each file, and how it compares with its source."""

    name: str
    revision: str
    source_weights: str
    files: dict[str, str]
    parity: Parity


def export(source: Source, folder: Path, on_step: Step) -> Exported:
    """Write the model of a folder in the hub's format as ONNX, fp32 and int8, into `folder`.

    What stood there is replaced only by an export that has passed.

    Raises:
        BadConfiguration: there is no such model, or the extra `finbert` is not installed.
        Unsafe: the graph does not say what the model says; nothing of it is left.
    """
    beside = folder.with_name(f".{folder.name}.exporting")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        made = _export(source, beside, on_step)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return made


def _export(source: Source, folder: Path, on_step: Step) -> Exported:
    on_step("loading")
    # One thread, so that the comparison is the same on any machine.
    model = TorchClassifier(source, threads=1)
    labels_of(source.folder)
    on_step("exporting")
    _write_graph(model, folder / FP32)
    model.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    shutil.copyfile(source.folder / CONFIG, folder / CONFIG)
    on_step("quantising")
    quantise(folder / FP32, folder / INT8)
    files = {name: sha256_of(folder / name) for name in (FP32, INT8, TOKENIZER, CONFIG)}
    name, revision, weights = model.model.name, model.model.revision, model.model.weights
    manifest = {"name": name, "revision": revision, "source_weights": weights, "files": files}
    write_json(folder / MANIFEST, manifest)
    on_step("comparing")
    parity = compared(model, folder)
    if not parity.is_kept:
        raise Unsafe(f"the exported graph is refused: {told(parity)}", "docs/sentiment.md says why")
    with_ = {package: version(package) for package in ("torch", "transformers", "onnxruntime")}
    write_json(folder / MANIFEST, {**manifest, "parity": asdict(parity), "made_with": with_})
    return Exported(name, revision, weights, files, parity)


def told(parity: Parity) -> str:
    """The comparison in one line."""
    twins = "none found" if parity.twins is None else f"{parity.twins:.1e}"
    return (
        f"largest difference of logits {parity.max_difference:.1e} over {parity.headlines}"
        f" headlines (limit {MAX_DIFFERENCE:.0e}), between sentences of equal length {twins}"
    )


def compared(model: TorchClassifier, folder: Path) -> Parity:
    """The exported fp32 graph and its tokenizer beside the model itself."""
    exported = OnnxClassifier(folder, "fp32", threads=1)
    texts = headlines(HEADLINES)
    ours = [exported.reader.read(text)[0] for text in texts]
    if ours != [model.reader.read(text)[0] for text in texts]:
        raise Unsafe("the exported tokenizer cuts words otherwise than the model's own")
    return parity_of(ours, model.logits_of, exported.logits_of)


def parity_of(read: Sequence[Ids], first: Logits, second: Logits) -> Parity:
    """Two graphs over the same token ids, in padded batches of unlike lengths."""
    of_first, of_second = _in_batches(read, first), _in_batches(read, second)
    apart = [_difference(a, b) for a, b in zip(of_first, of_second, strict=True)]
    by_length = sorted(read, key=lambda ids: (len(ids), ids))
    twins = [
        _difference(*second([one, other]))
        for one, other in pairwise(by_length)
        if len(one) == len(other) and one != other
    ]
    return Parity(len(read), _largest(apart), min(twins, default=None))


def quantise(fp32: Path, int8: Path) -> None:
    """Weights as int8, each output channel with its own scale; activations are scaled as they come.

    Raises:
        BadConfiguration: the extra `finbert` is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise BadConfiguration(f"model export: {error}", EXTRA) from None
    with _quiet():
        quantize_dynamic(str(fp32), str(int8), per_channel=True, weight_type=QuantType.QInt8)


def _write_graph(model: TorchClassifier, path: Path) -> None:
    """The graph with two inputs of any batch and length; `logits` is its only output."""
    network = model.network  # first: it says how to install what is missing
    import torch

    # Distinct tensors, and a padded row: with one tensor for both, the tracer takes them for the
    # same input, and the graph reads the mask alone.
    ids, mask = (torch.tensor(rows) for rows in padded([[1, 2, 3, 4], [4, 1]]))

    class Logits(torch.nn.Module):  # type: ignore[misc] # torch is Any: it may be absent
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.network(input_ids=input_ids, attention_mask=attention_mask).logits

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with _quiet():
        torch.onnx.export(
            Logits().eval(),
            (ids, mask),
            str(path),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            external_data=False,
            verbose=False,
        )


def _in_batches(read: Sequence[Ids], logits_of: Logits, size: int = 8) -> list[list[float]]:
    return [
        row
        for start in range(0, len(read), size)
        for row in logits_of(list(read[start : start + size]))
    ]


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest of the differences; NaN where one is."""
    return _largest([abs(a - b) for a, b in zip(one, other, strict=True)])


def _largest(numbers: Sequence[float]) -> float:
    # max() passes over a NaN that does not come first.
    return nan if any(map(isnan, numbers)) else max(numbers)


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch and onnxruntime tell developers is not for an operator."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
