"""A model with FinBERT's architecture, tiny and untrained, in the hub's format; made here."""

import json
import re
from pathlib import Path

from ops_pipeline.proofs.model.headlines import headlines

LABELS = {"0": "positive", "1": "negative", "2": "neutral"}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary() -> list[str]:
    """Words of the built-in headlines, and each letter alone and within a word."""
    words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(headlines(2_000)).lower())))
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [f"##{letter}" for letter in letters]
    return list(dict.fromkeys([*SPECIAL, *letters, *pieces, *words]))


def make_finbert(folder: Path, labels: dict[str, str] | None = None, seed: int = 7) -> Path:
    """Two layers of 32, with random weights large enough for texts to differ."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.4,
        num_labels=3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    tokenizer.save_pretrained(folder)
    rename(folder, labels or LABELS)
    return folder


def rename(folder: Path, labels: object) -> None:
    """Call the outputs of a model something else."""
    path = folder / "config.json"
    told = {**json.loads(path.read_text("utf-8")), "id2label": labels}
    path.write_text(json.dumps(told), encoding="utf-8")
