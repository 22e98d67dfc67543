import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ops_pipeline.domain.logs import Line, level_of, read_lines, without

ZONE = timezone(timedelta(hours=-5))
COLLECTED = {
    "timestamp": "2026-11-28T21:30:07+00:00",
    "level": "ERROR",
    "event": "cut",
    "data": {"n": 1},
    "error": "OSError",
}
AT = datetime(2026, 11, 28, 21, 30, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "level", "said"),
    [
        ("2026-11-28 21:30:07.000 UTC [1] LOG:  ready", "INFO", "[1] LOG:  ready"),
        ("2026-11-28 21:30:07.000 UTC [1] FATAL:  no", "ERROR", "[1] FATAL:  no"),
        (
            "\x1b[32m2026-11-28 21:30:07 +0000\x1b[0m - dagster.daemon - \x1b[34mINFO\x1b[0m - on",
            "INFO",
            "dagster.daemon - INFO - on",
        ),
        ("2026-11-28 16:30:07,000 web is gone", "INFO", "web is gone"),
        ("2026-11-28 16:30:07,000 WARNING: low", "WARNING", "WARNING: low"),
        (
            json.dumps(COLLECTED),
            "ERROR",
            'cut {"n": 1} OSError',
        ),
    ],
)
def test_each_writers_line_has_time_level_and_text(text: str, level: str, said: str) -> None:
    assert list(read_lines([text], ZONE)) == [Line(AT, level, said)]


def test_a_line_without_a_time_has_that_of_the_line_before() -> None:
    texts = ["first", "2026-11-28 16:30:07,000 Traceback", '  File "x"', ""]
    assert [line.at for line in read_lines(texts, ZONE, "run")] == [None, AT, AT]


@pytest.mark.parametrize("text", ["{no json}", '{"a": 1}', "2026-13-45 99:99:99 UTC x"])
def test_what_only_looks_like_a_line_of_ours_is_shown_as_it_is(text: str) -> None:
    (line,) = read_lines([text], ZONE)
    assert line.at is None
    assert line.text in text


def test_a_secret_is_not_shown_and_a_short_one_hides_no_word() -> None:
    line = Line(AT, "INFO", "password=s3cret-word a")
    assert without(["s3cret-word", "a", ""], line).text == "password=*** a"


def test_a_level_that_is_no_number_is_information() -> None:
    assert (level_of(40), level_of(None), level_of("40")) == ("ERROR", "INFO", "INFO")
