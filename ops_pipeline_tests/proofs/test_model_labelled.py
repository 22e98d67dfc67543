"""Files of labelled texts: what is taken, what is refused, and how a model is judged by them."""

from collections import Counter
from pathlib import Path

import pytest

from ops_pipeline.domain.errors import BadInput
from ops_pipeline.proofs.model.headlines import headlines
from ops_pipeline.proofs.model.labelled import (
    Text,
    majority,
    parse_names,
    plain_vader,
    quality_of,
    read_texts,
)

NAMES = {"0": "negative", "1": "positive", "2": "neutral"}


def file(folder: Path, content: str, name: str = "texts.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\ngood,positive\nbad,Negative \nso so,NEUTRAL\n"),
        ("a.csv", "label,sentence\n1,good\n0,bad\n2,so so\n"),
        ("a.csv", "\ufeffheadline,score\ngood,0.1\nbad,-1\nso so,0.09\n"),
        (
            "a.jsonl",
            (
                '{"title": "good", "score": 0.5}\n\n{"title": "bad", "label": 0}\n'
                '{"title": "so so", "label": "2"}\n'
            ),
        ),
    ],
)
def test_labels_are_names_or_translated_or_cut_from_a_score(
    tmp_path: Path, name: str, content: str
) -> None:
    assert read_texts(file(tmp_path, content, name), NAMES, 10) == [
        Text("good", "positive"),
        Text("bad", "negative"),
        Text("so so", "neutral"),
    ]


def test_a_file_without_labels_is_texts_alone(tmp_path: Path) -> None:
    assert read_texts(file(tmp_path, "text\none\ntwo\n"), {}, 10) == [
        Text("one", None),
        Text("two", None),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text,label\ngood,1\n", "row 1 has label '1'"),
        ("text,label\ngood,positive\nbad,bearish\n", "row 2 has label 'bearish'"),
        ("text,score\ngood,1.5\n", "row 1 has score '1.5'"),
        ("text,score\ngood,nan\n", "row 1 has score 'nan'"),
        ("text,score\ngood,much\n", "row 1 has score 'much'"),
        ("words\ngood\n", "row 1 has no text"),
        ("text\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_what_cannot_be_read_is_refused_by_row(tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read_texts(file(tmp_path, content), {}, 10)


@pytest.mark.parametrize("content", ["[1]\n", "no json\n"])
def test_lines_that_are_no_objects_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadInput):
        read_texts(file(tmp_path, content, "a.jsonl"), {}, 10)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_texts(tmp_path / "absent.csv", {}, 10)


def test_more_rows_than_wanted_are_thinned_evenly(tmp_path: Path) -> None:
    path = file(tmp_path, "text\n" + "".join(f"row {number}\n" for number in range(100)))
    assert [text.text for text in read_texts(path, {}, 30)] == [
        f"row {number}" for number in range(0, 100, 4)
    ]


def test_names_of_labels_are_read_from_one_option() -> None:
    assert parse_names("0=Negative, 1=positive,2=neutral") == NAMES
    assert parse_names("") == {}
    for text in ("0", "0=bad", "0=positive=1"):
        with pytest.raises(BadInput, match="--labels must read like"):
            parse_names(text)


def test_macro_f1_is_the_mean_over_the_three_labels() -> None:
    expected = ["positive"] * 2 + ["negative"] * 2 + ["neutral"] * 4
    found = ["positive", "negative", "negative", "negative", *["neutral"] * 3, "positive"]
    # F1 by hand: positive 2*1/(2+2), negative 2*2/(2+3), neutral 2*3/(4+3)
    seen = quality_of("by hand", expected, found)
    assert seen.accuracy == 6 / 8
    assert seen.macro_f1 == pytest.approx((1 / 2 + 4 / 5 + 6 / 7) / 3)
    always = majority(expected)
    assert (always.model, always.accuracy) == ("always neutral", 0.5)
    assert always.macro_f1 == pytest.approx(2 * 4 / (4 + 8) / 3)


def test_plain_vader_is_cut_as_its_authors_advise() -> None:
    texts = ["great success", "horrible fraud", "the company"]
    assert plain_vader(["positive", "negative", "neutral"], texts).accuracy == 1.0


def test_built_in_headlines_are_different_and_of_many_lengths() -> None:
    made = headlines(2_000)
    assert len(set(made)) == 2_000
    assert headlines(5) == made[:5]
    words = Counter(len(text.split()) for text in made)
    assert (min(words), max(words) > 25, len(words) > 20) == (2, True, True)
    with pytest.raises(ValueError, match="there are 2100 headlines"):
        headlines(2_101)
