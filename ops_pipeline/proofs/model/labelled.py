"""Files of texts that people have labelled, and how well a model does on them."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline.clients.finbert_folder import LABELS
from ops_pipeline.domain.errors import BadInput

TEXT_COLUMNS = ("text", "sentence", "headline", "title")
LABEL, SCORE = "label", "score"
# A score between -1 and 1 that is no further from 0 than this is neutral.
SCORE_CUT = 0.1
# vaderSentiment's own advice for its compound value.
VADER_CUT = 0.05
FORMATS = "csv or jsonl with text, sentence, headline or title, and maybe label or score"


@dataclass(frozen=True)
class Text:
    """A text, and what people call it, where they did."""

    text: str
    label: str | None


@dataclass(frozen=True)
class Quality:
    """How a model does on labelled texts; macro-F1 is the mean F1 of the three labels."""

    model: str
    accuracy: float
    macro_f1: float


def read_texts(path: Path, names: Mapping[str, str], limit: int) -> list[Text]:
    """Texts of a file, `limit` of them evenly spaced where there are more.

    A label is positive, negative or neutral, or a word of the file's own that `names` translates.

    Raises:
        BadInput: the file cannot be used; the message names the row.
    """
    try:
        rows = list(_rows(path))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"{path.name} cannot be read: {error}", f"it must be {FORMATS}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path.name} has a line that is no JSON object")
    chosen = range(0, len(rows), max(1, -(-len(rows) // limit)))
    texts = [_text(rows[number], number + 1, names) for number in chosen]
    if not texts:
        raise BadInput(f"{path.name} has no rows", f"it must be {FORMATS}")
    if len({text.label is None for text in texts}) > 1:
        raise BadInput(f"{path.name} has rows with a label, and rows without")
    return texts


def parse_names(text: str) -> dict[str, str]:
    """What --labels says, as "0=negative,1=positive,2=neutral".

    Raises:
        BadInput: it does not read like that.
    """
    pairs = [part.split("=") for part in text.split(",") if part.strip()]
    if not all(len(pair) == 2 and pair[1].strip().lower() in LABELS for pair in pairs):
        raise BadInput('--labels must read like "0=negative,1=positive,2=neutral"')
    return {name.strip().lower(): label.strip().lower() for name, label in pairs}


def quality_of(model: str, expected: Sequence[str], found: Sequence[str]) -> Quality:
    """Accuracy and macro-F1 of labels; a label that is neither expected nor found counts 0."""
    pairs = Counter(zip(expected, found, strict=True))
    hits = {label: pairs[label, label] for label in LABELS}
    wanted, given = Counter(expected), Counter(found)
    f1 = [
        2 * hits[label] / both if (both := wanted[label] + given[label]) else 0.0
        for label in LABELS
    ]
    return Quality(model, sum(hits.values()) / len(expected), sum(f1) / len(f1))


def majority(expected: Sequence[str]) -> Quality:
    """What always saying the most frequent label comes to."""
    ((most, _),) = Counter(expected).most_common(1)
    return quality_of(f"always {most}", expected, [most] * len(expected))


def plain_vader(expected: Sequence[str], texts: Sequence[str]) -> Quality:
    """What vaderSentiment without any word of ours comes to."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    values = [float(analyzer.polarity_scores(text)["compound"]) for text in texts]
    return quality_of("vaderSentiment", expected, [_of_score(v, VADER_CUT) for v in values])


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
        else:
            yield from csv.DictReader(file)


def _text(row: Mapping[str, object], number: int, names: Mapping[str, str]) -> Text:
    column = next((name for name in TEXT_COLUMNS if row.get(name) is not None), None)
    if column is None:
        raise BadInput(f"row {number} has no text", f"it must be {FORMATS}")
    return Text(str(row[column]), _label(row, number, names))


def _label(row: Mapping[str, object], number: int, names: Mapping[str, str]) -> str | None:
    if row.get(LABEL) is not None:
        told = str(row[LABEL]).strip().lower()
        label = names.get(told, told)
        if label not in LABELS:
            raise BadInput(
                f"row {number} has label {told[:40]!r}",
                'say what it means: --labels "0=negative,1=positive,2=neutral"',
            )
        return label
    if row.get(SCORE) is None:
        return None
    try:
        score = float(str(row[SCORE]))
    except ValueError:
        score = 2.0
    if not -1.0 <= score <= 1.0:
        raise BadInput(f"row {number} has score {str(row[SCORE])[:40]!r}, not one from -1 to 1")
    return _of_score(score, SCORE_CUT)


def _of_score(score: float, cut: float) -> str:
    if abs(score) < cut:
        return "neutral"
    return "positive" if score > 0 else "negative"
