"""FinBERT by transformers and torch: what exports, and what the export is compared with.

It needs the extra `finbert`; nothing of it is imported before the first text is scored.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ops_pipeline.clients.finbert_batches import Ids, Reader, padded, scores_of
from ops_pipeline.clients.finbert_folder import (
    TO_PULL,
    Source,
    labels_of,
    sha256_of,
    source_weights,
    version_of,
)
from ops_pipeline.clients.finbert_onnx import available_cores
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.values import Model, Score

EXTRA = "run: .venv/bin/pip install -c constraints.txt -e '.[finbert]'"


class TorchClassifier:
    """The model in a folder of the hub's format, in fp32.

    Raises:
        BadConfiguration: the folder has no model, or its labels are called something else.
    """

    def __init__(self, source: Source, threads: int | None = None) -> None:
        self._source = source
        self._threads = threads or available_cores()
        weights = source_weights(source)
        self._labels = labels_of(source.folder)
        digest = sha256_of(weights)
        revision = version_of(source.revision, digest, "fp32")
        self.model = Model("finbert", source.name, revision, "fp32", digest)

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score for each text, in order; what is longer than 128 tokens is cut, and says so.

        Raises:
            Unscorable: the model has no number for some; it carries all other scores.
            BadConfiguration: the model cannot be loaded.
        """
        return scores_of(texts, self.reader, self.logits_of, self._labels) if texts else []

    def logits_of(self, batch: list[Ids], pad_to: int = 0) -> list[list[float]]:
        """Logits of token ids, texts x labels, in the order of the model's outputs."""
        import torch

        ids, mask = (torch.tensor(rows, dtype=torch.long) for rows in padded(batch, pad_to))
        with torch.inference_mode():
            logits = self.network(input_ids=ids, attention_mask=mask).logits
        rows: list[list[float]] = logits.float().tolist()
        return rows

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers has it."""
        return _loaded(self._source, "AutoTokenizer")

    @cached_property
    def reader(self) -> Reader:
        """The tokenizer below it: of the same package as that of the exported model."""
        return Reader(self.tokenizer.backend_tokenizer)

    @cached_property
    def network(self) -> Any:
        """The network, ready to run on all cores that this process may use."""
        made, told = _loaded(
            self._source, "AutoModelForSequenceClassification", output_loading_info=True
        )
        # transformers fills in random numbers for what a folder lacks, and goes on.
        if missing := sorted(told["missing_keys"]):
            raise BadConfiguration(
                f"the weights of {self._source.name} lack {missing[0]}: it is no classifier",
                TO_PULL,
            )
        import torch

        torch.set_num_threads(self._threads)
        return made.eval()


def _loaded(source: Source, loader: str, **options: bool) -> Any:
    """What a class of transformers makes of the folder."""
    try:
        import torch  # noqa: F401 - transformers without torch says so in a page of text
        import transformers
    except ImportError as error:
        raise BadConfiguration(f"OPS_SENTIMENT=finbert: {error}", EXTRA) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return getattr(transformers, loader).from_pretrained(
            str(source.folder), local_files_only=True, **options
        )
    except Exception as error:  # whatever is wrong with the files, the operator has to act
        told = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise BadConfiguration(f"{source.name} cannot be loaded: {told}", TO_PULL) from error
