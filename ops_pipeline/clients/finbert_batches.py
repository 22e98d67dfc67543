"""From texts to scores in bounded batches, whatever computes the logits.

Texts are cut at 128 tokens, sorted by length, and padded only to the longest of their batch.
"""

from collections.abc import Callable, Iterator, Sequence
from math import exp, isfinite
from typing import Any

from ops_pipeline.clients.protocols import Unscorable
from ops_pipeline.domain.values import Score

MAX_TOKENS = 128
# Activations grow with the padded tokens of a batch. Small batches also waste least on padding: of
# those measured (docs/sentiment.md) these were the fastest, for headlines and with summaries.
BATCH_TEXTS, BATCH_TOKENS = 8, 512

Ids = list[int]
Logits = Callable[[list[Ids]], list[list[float]]]


class Reader:
    """A tokenizer of the package tokenizers, that cuts at 128 tokens and never pads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        # A text that says [SEP] says a word in brackets, and ends nothing.
        tokenizer.encode_special_tokens = True

    def read(self, text: str) -> tuple[Ids, bool]:
        """Token ids of a text, at least one and at most 128, and whether it was longer."""
        # Half of a surrogate pair is no Unicode; feeds that cut within an emoji bring some.
        whole = text.encode("utf-8", "replace").decode("utf-8")
        # One by one: encode_batch starts threads that a fork of the process does not survive.
        encoding = self._tokenizer.encode(whole)
        return list(encoding.ids), bool(encoding.overflowing)


def scores_of(
    texts: Sequence[str], reader: Reader, logits_of: Logits, labels: tuple[str, ...]
) -> list[Score]:
    """One score for each text, in order.

    Raises:
        Unscorable: the model gave numbers for some that are none; it carries all other scores.
    """
    read = [reader.read(text) for text in texts]
    found: list[Score | None] = [None] * len(read)
    for batch in batches([len(ids) for ids, _ in read]):
        rows = _rows([read[index][0] for index in batch], logits_of)
        for index, row in zip(batch, rows, strict=True):
            found[index] = score_of_logits(row, labels, is_truncated=read[index][1])
    scores = [score for score in found if score is not None]
    if len(scores) < len(found):
        raise Unscorable(found)
    return scores


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indexes of texts with these numbers of tokens, by likeness of length.

    Each batch is bounded by texts and by padded tokens; the longest texts come first, so that
    what memory they need is known at once and reused by all that follow.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (len(batch) == BATCH_TEXTS or longest * (len(batch) + 1) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(batch: Sequence[Ids], pad_to: int = 0) -> tuple[list[Ids], list[Ids]]:
    """Ids and attention mask of a batch, both texts x tokens of the longest text, or `pad_to`."""
    width = max(pad_to, *(len(ids) for ids in batch))
    ids = [[*row, *[0] * (width - len(row))] for row in batch]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in batch]
    return ids, mask


def score_of_logits(
    logits: Sequence[float], labels: tuple[str, ...], *, is_truncated: bool = False
) -> Score | None:
    """Probabilities (softmax) of one text's logits, by label; None where one is NaN or infinite.

    Raises:
        ValueError: there are more or fewer logits than labels.
    """
    if len(logits) == len(labels) and not all(map(isfinite, logits)):
        return None
    weights = [exp(logit - max(logits)) for logit in logits]
    shares = {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    return Score(**shares, is_truncated=is_truncated)


def _rows(batch: list[Ids], logits_of: Logits) -> list[list[float]]:
    """Logits of a batch; where one row is no number, each text is asked for alone.

    An int8 graph scales its activations over the whole batch, so one bad text spoils them all.
    """
    rows = logits_of(batch)
    if len(batch) == 1 or all(isfinite(number) for row in rows for number in row):
        return rows
    return [logits_of([ids])[0] for ids in batch]
