"""Folders that hold FinBERT: where they are, their files, labels by name, hashes of weights.

Two of them, below the var folder's `models`: `finbert` as the hub gives it, and `finbert-onnx`,
which `ops-pipeline model export` makes of it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import Settings

REPOSITORY = "ProsusAI/finbert"
# A commit of the hub's repository, so that what is pulled never changes by itself. It was written
# down by hand: only the hub can say whether it exists, and `model pull` asks for no other.
REVISION = "4556d13015211d73dccd3fdd39d39232506f3e43"
LOCAL = "local"
LABELS = ("positive", "negative", "neutral")
# In the order in which transformers takes them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
FP32, INT8 = "model.onnx", "model.int8.onnx"
MANIFEST, VERIFIED = "manifest.json", "verified.json"
TO_EXPORT = "run: ops-pipeline model export; or set OPS_SENTIMENT=lexicon"
TO_PULL = (
    "run: ops-pipeline model pull; or set OPS_FINBERT_PATH to a folder in the hub's format,"
    " or OPS_SENTIMENT=lexicon"
)


@dataclass(frozen=True)
class Source:
    """A folder in the hub's format, and what the model in it is called."""

    folder: Path
    name: str
    revision: str


def source_of(settings: Settings) -> Source:
    """Where FinBERT itself is, or would be: the folder that is named, else the pulled one."""
    if settings.finbert_path:
        return Source(settings.finbert_path, settings.finbert_path.name, LOCAL)
    return Source(settings.models_dir / "finbert", REPOSITORY, REVISION)


def onnx_folder(settings: Settings) -> Path:
    """Where `model export` writes, and `finbert-onnx` reads."""
    return settings.models_dir / "finbert-onnx"


def source_weights(source: Source) -> Path:
    """The file with the weights, as transformers chooses it.

    Raises:
        BadConfiguration: there is none; the message says how to come by it.
    """
    for name in WEIGHTS:
        if (source.folder / name).is_file():
            return source.folder / name
    raise BadConfiguration(
        f"there is no model of {source.name}: neither {' nor '.join(WEIGHTS)}", TO_PULL
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model's folder.

    Raises:
        BadConfiguration: the file is missing or is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfiguration(f"the model has no {path.name}", TO_EXPORT) from None
    except (OSError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise BadConfiguration(f"{path.name} of the model: {told}", TO_EXPORT) from None
    if not isinstance(found, dict):
        raise BadConfiguration(f"{path.name} of the model is no JSON object", TO_EXPORT)
    return found


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object so that a reader finds the old or the new one, never half of it."""
    replace_private(path, json.dumps(content, indent=2) + "\n")


def labels_of(folder: Path) -> tuple[str, ...]:
    """What each of the model's outputs is called, in their order.

    By name, because fine-tunes of the same architecture order them differently.

    Raises:
        BadConfiguration: they are not positive, negative and neutral, each once.
    """
    named = read_json(folder / CONFIG).get("id2label")
    found = named if isinstance(named, dict) else {}
    labels = tuple(str(found.get(str(number), "")).strip().lower() for number in range(len(LABELS)))
    if len(found) != len(LABELS) or sorted(labels) != sorted(LABELS):
        raise BadConfiguration(
            f"config.json calls the model's outputs {str(named)[:120]!r}, not {', '.join(LABELS)}",
            "correct id2label in config.json, and export the model again",
        )
    return labels


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Remembered beside the file for as long as size and time of change stay: a run each minute must
    not read 440 MB each minute.
    """
    state = path.stat()
    key = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
    beside = path.with_name(f"{path.name}.sha256.json")
    try:
        kept = json.loads(beside.read_text(encoding="utf-8"))
        if {name: kept[name] for name in key} == key:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not ours: the file itself is read
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    with suppress(OSError):  # the folder may be read-only; then the next process reads again
        write_json(beside, {**key, "sha256": digest})
    return digest


def version_of(revision: str, source_weights: str, precision: str) -> str:
    """What tells the scores of a model apart: its revision, or its weights, and what is rounded.

    Both backends score alike in fp32, so a text that one has scored is not scored again.
    """
    base = revision if revision != LOCAL else f"{LOCAL}-{source_weights[:12]}"
    return base if precision == "fp32" else f"{base}+{precision}"


def is_verified(folder: Path) -> bool:
    """Whether `model verify` has passed for the very weights that are in this folder."""
    if not all((folder / name).is_file() for name in (VERIFIED, FP32, INT8)):
        return False
    record = read_json(folder / VERIFIED)
    return [record.get(name) for name in (FP32, INT8)] == [
        sha256_of(folder / name) for name in (FP32, INT8)
    ]
