"""Models on this machine: which are there, which one scores, and how to come by FinBERT."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline.clients.classifiers import classifier_of
from ops_pipeline.clients.finbert import EXTRA
from ops_pipeline.clients.finbert_folder import (
    FP32,
    INT8,
    MANIFEST,
    REPOSITORY,
    REVISION,
    is_verified,
    onnx_folder,
    read_json,
    sha256_of,
    source_of,
    source_weights,
)
from ops_pipeline.clients.lexicon import LexiconClassifier
from ops_pipeline.domain.errors import BadConfiguration, NotRunning, OperatorError
from ops_pipeline.domain.values import Model
from ops_pipeline.settings import SentimentBackend, Settings

# No other framework's weights, which are as large again.
FILES = ("config.json", "tokenizer*", "special_tokens_map.json", "vocab.txt")
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
NO_HUB = "pull on a machine that reaches it, and set OPS_FINBERT_PATH to a copy of that folder"


@dataclass(frozen=True)
class Kept:
    """A model that could score; `is_verified` is None where nothing has to be verified."""

    model: Model
    megabytes: float
    is_active: bool
    is_verified: bool | None = None


@dataclass(frozen=True)
class Listing:
    """The models that are there, and what is wrong with the configured one, if anything is."""

    configured: str
    models: list[Kept]
    problem: str = ""
    hint: str = ""


def list_models(settings: Settings) -> Listing:
    """Look at the folders; no weights are loaded."""
    active, problem, hint = None, "", ""
    try:
        active = classifier_of(settings).model
    except OperatorError as error:
        problem, hint = str(error), error.hint
    found = [(LexiconClassifier().model, 0.0, None), *_source(settings), *_exported(settings)]
    kept = [Kept(model, size, model == active, verified) for model, size, verified in found]
    return Listing(settings.sentiment.value, kept, problem, hint)


def pull(settings: Settings) -> Path:
    """Fetch FinBERT's pinned revision from the hub, once; the folder that it stands in.

    Raises:
        BadConfiguration: another folder is configured, or the extra `finbert` is not installed.
        NotRunning: the hub does not answer, or does not have the revision.
    """
    if settings.finbert_path:
        raise BadConfiguration("OPS_FINBERT_PATH is set: that folder is used", "unset it to pull")
    folder = source_of(settings).folder
    if not folder.exists():
        # What was cut off is resumed by the next pull; what stands under the name is whole.
        beside = folder.with_name(f".{folder.name}.pulling")
        _fetch(beside)
        shutil.rmtree(beside / ".cache", ignore_errors=True)
        beside.rename(folder)
    source_weights(source_of(settings))
    return folder


def _fetch(folder: Path) -> None:
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise BadConfiguration(f"model pull: {error}", EXTRA) from None
    logging.set_verbosity_error()
    try:
        told = HfApi().model_info(REPOSITORY, revision=REVISION, timeout=20)
        there = {file.rfilename for file in told.siblings or []}
        weights = next(name for name in WEIGHTS_FILES if name in there)
        snapshot_download(
            REPOSITORY, revision=REVISION, local_dir=folder, allow_patterns=[*FILES, weights]
        )
    except StopIteration:
        raise NotRunning(f"{REPOSITORY} has no weights at revision {REVISION[:12]}") from None
    except Exception as error:  # its errors have no common class, and the operator's way is one
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise NotRunning(f"{REPOSITORY} cannot be pulled: {line}", NO_HUB) from error


def _source(settings: Settings) -> list[tuple[Model, float, bool | None]]:
    source = source_of(settings)
    try:
        weights = source_weights(source)
    except BadConfiguration:
        return []
    backend = SentimentBackend.FINBERT.value
    model = Model(backend, source.name, source.revision, "fp32", sha256_of(weights))
    return [(model, _megabytes(weights), None)]


def _exported(settings: Settings) -> list[tuple[Model, float, bool | None]]:
    folder = onnx_folder(settings)
    if not (folder / MANIFEST).is_file():
        return []
    told = read_json(folder / MANIFEST)
    backend, name, revision = "finbert-onnx", str(told.get("name")), str(told.get("revision"))
    return [
        (
            Model(backend, name, revision, precision, sha256_of(folder / weights)),
            _megabytes(folder / weights),
            is_verified(folder) if precision == "int8" else None,
        )
        for precision, weights in (("fp32", FP32), ("int8", INT8))
        if (folder / weights).is_file()
    ]


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6
