"""Events are told as lines of JSON, for as long as they are asked for."""

import json
import logging

import pytest

from ops_pipeline.engine.logs import told_events

log = logging.getLogger("ops_pipeline.somewhere")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_line_with_its_time_its_name_and_its_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with told_events("ops_pipeline"):
        log.info("recommendations_claimed", extra={"data": {"count": 3}})
    (told,) = lines(capsys)
    assert set(told) == {"timestamp", "level", "event", "data"}
    assert (told["event"], told["data"]) == ("recommendations_claimed", {"count": 3})
    assert str(told["timestamp"]).endswith("+00:00")


def test_an_error_is_told_by_its_kind_and_never_by_its_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with told_events("ops_pipeline"):
        try:
            int("password=secret")
        except ValueError:
            log.exception("processing_error")
    (told,) = lines(capsys)
    assert told["error"] == "ValueError"
    assert "secret" not in json.dumps(told)


def test_nothing_is_told_after(capsys: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("ops_pipeline").level
    with told_events("ops_pipeline"):
        pass
    log.info("later")
    assert lines(capsys) == []
    assert logging.getLogger("ops_pipeline").level == level
