"""FinBERT by ONNX Runtime: the production default.

Nothing of it is imported before the first text is scored: whatever only asks for the model's name,
as features do, pays for a hash that is remembered.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ops_pipeline.clients.finbert_batches import Ids, Reader, padded, scores_of
from ops_pipeline.clients.finbert_folder import (
    CONFIG,
    FP32,
    INT8,
    MANIFEST,
    TO_EXPORT,
    TOKENIZER,
    is_verified,
    labels_of,
    read_json,
    sha256_of,
    version_of,
)
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.values import Model, Score

Precision = Literal["fp32", "int8"]
WEIGHTS: dict[Precision, str] = {"fp32": FP32, "int8": INT8}


class OnnxClassifier:
    """The model that `ops-pipeline model export` has written to a folder.

    int8 is used where `model verify` has passed for these very weights, fp32 otherwise; a
    precision given here is used as it is.

    Raises:
        BadConfiguration: the folder has no such model, or not the one that was exported.
    """

    def __init__(
        self, folder: Path, precision: Precision | None = None, threads: int | None = None
    ) -> None:
        self._folder = folder
        self._threads = threads or available_cores()
        if not (folder / FP32).is_file():
            raise BadConfiguration(
                "OPS_SENTIMENT=finbert-onnx: there is no exported model", TO_EXPORT
            )
        chosen = precision or ("int8" if is_verified(folder) else "fp32")
        self._weights = folder / WEIGHTS[chosen]
        manifest = read_json(folder / MANIFEST)
        self._check(manifest)
        self._labels = labels_of(folder)
        self.model = Model(
            "finbert-onnx",
            str(manifest.get("name")),
            version_of(str(manifest["revision"]), str(manifest["source_weights"]), chosen),
            chosen,
            sha256_of(self._weights),
        )

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score for each text, in order; what is longer than 128 tokens is cut, and says so.

        Raises:
            Unscorable: the model has no number for some; it carries all other scores.
            BadConfiguration: the model cannot be loaded.
        """
        return scores_of(texts, self.reader, self.logits_of, self._labels) if texts else []

    def logits_of(self, batch: list[Ids], pad_to: int = 0) -> list[list[float]]:
        """Logits of token ids, texts x labels, in the order of the model's outputs."""
        import numpy as np

        ids, mask = (np.asarray(rows, dtype=np.int64) for rows in padded(batch, pad_to))
        (logits,) = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        rows: list[list[float]] = logits.tolist()
        return rows

    @cached_property
    def reader(self) -> Reader:
        """The tokenizer."""
        from tokenizers import Tokenizer

        return Reader(Tokenizer.from_file(str(self._folder / TOKENIZER)))

    @cached_property
    def session(self) -> Any:
        """The graph, ready to run on all cores that this process may use."""
        try:
            from onnxruntime import InferenceSession
        except ImportError as error:
            raise BadConfiguration(
                f"onnxruntime cannot be loaded: {error}", "run: make install"
            ) from None
        try:
            return InferenceSession(
                str(self._weights), _options(self._threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common class but RuntimeError's parents
            told = str(error).strip().splitlines()[0][:160]
            raise BadConfiguration(f"{self._weights.name}: {told}", TO_EXPORT) from error

    def _check(self, manifest: dict[str, Any]) -> None:
        """Refuse a file that is not the one that was exported, and passed its parity."""
        exported = manifest.get("files") or {}
        for name in (self._weights.name, TOKENIZER, CONFIG):
            path = self._folder / name
            if not path.is_file() or exported.get(name) != sha256_of(path):
                raise BadConfiguration(f"{name} is not the one that was exported", TO_EXPORT)


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _options(threads: int) -> Any:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    # Set, because the default counts the machine's cores, and not those of a container.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait by spinning take the cores of whatever else runs this minute.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
