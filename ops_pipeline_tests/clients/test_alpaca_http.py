import gzip
import json
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from threading import Thread
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient

from ops_pipeline.clients.alpaca_http import (
    AlpacaBusy,
    AlpacaSilent,
    Patience,
    PatientAdapter,
    RateBudget,
    patient,
)
from ops_pipeline_tests.builders import NOON
from ops_pipeline_tests.clients.alpaca_stub import DROP, HANG, Answer, Stub, Time, serving

FINE = Answer({"is": "fine"})
CUT_OFF = Answer({"is": "fine"}, is_cut_off=True)
TRANSIENT = {
    "429": Answer({"message": "too many requests."}, 429),
    "500": Answer("broken", 500),
    "502": Answer("<html>bad gateway</html>", 502),
    "503": Answer("", 503),
    "504": Answer("", 504),
    "dropped": DROP,
    "cut off": CUT_OFF,
    "no JSON": Answer('{"bars": {"AAPL": [{"t"'),
    "HTML": Answer("<html>please log in</html>"),
    "empty": Answer(""),
    "too deep": Answer("[" * 200_000),
    "redirected": Answer("", 302, {"Location": "http://127.0.0.1:1/"}),
}


@pytest.fixture
def clock() -> Time:
    return Time()


def get(
    stub: Stub, clock: Time, *, adapter: PatientAdapter | None = None, method: str = "get"
) -> Any:
    """One request by alpaca-py's own client."""
    adapter = adapter or PatientAdapter(clock.patience(), clock.budget(), clock.now)
    client = RESTClient(stub.url, "a-key", "a-secret")
    with patient(client, adapter):
        return getattr(client, method)("/things")


@pytest.mark.parametrize("failure", TRANSIENT.values(), ids=TRANSIENT)
def test_a_get_that_fails_twice_is_answered_at_last(failure: Answer, clock: Time) -> None:
    with serving(failure, failure, FINE) as stub:
        assert get(stub, clock) == {"is": "fine"}
        assert len(stub.asked) == 3


@pytest.mark.parametrize("failure", TRANSIENT.values(), ids=TRANSIENT)
def test_a_get_is_sent_at_most_four_times(failure: Answer, clock: Time) -> None:
    with serving(failure) as stub:
        with pytest.raises((AlpacaSilent, AlpacaBusy)):
            get(stub, clock)
        assert len(stub.asked) == 4


@pytest.mark.parametrize("failure", [TRANSIENT["429"], TRANSIENT["504"], DROP, CUT_OFF])
@pytest.mark.parametrize("method", ["post", "delete"])
def test_what_changes_something_is_sent_once(failure: Answer, method: str, clock: Time) -> None:
    with serving(failure) as stub:
        with pytest.raises((AlpacaSilent, AlpacaBusy)):
            get(stub, clock, method=method)
        assert len(stub.asked) == 1
    assert clock.slept == []


def test_a_delete_may_be_answered_without_a_body(clock: Time) -> None:
    with serving(Answer("", 204)) as stub:
        assert get(stub, clock, method="delete") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_asked_again(status: int, clock: Time) -> None:
    with serving(Answer("no", status)) as stub:
        with pytest.raises(APIError):
            get(stub, clock)
        assert len(stub.asked) == 1


def test_waits_grow_from_half_a_second_and_are_random(clock: Time) -> None:
    with serving(TRANSIENT["500"]) as stub, pytest.raises(AlpacaSilent):
        get(stub, clock)
    assert len(clock.slept) == 3
    assert all(wait <= most for wait, most in zip(clock.slept, (0.5, 1, 2), strict=True))
    assert len(set(clock.slept)) == 3


def test_retry_after_in_seconds_is_waited(clock: Time) -> None:
    with serving(Answer("", 503, {"Retry-After": "7"}), FINE) as stub:
        get(stub, clock)
    assert clock.slept == [7]


def test_retry_after_as_a_date_is_waited(clock: Time) -> None:
    at = format_datetime(NOON + timedelta(seconds=9), usegmt=True)
    with serving(Answer("", 429, {"Retry-After": at}), FINE) as stub:
        get(stub, clock)
    assert clock.slept == [9]


@pytest.mark.parametrize("written", ["soon", "-5", "Mon, 99 Foo 2025", "1.5", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(written: str, clock: Time) -> None:
    with serving(Answer("", 503, {"Retry-After": written}), FINE) as stub:
        get(stub, clock)
    assert clock.slept[0] <= 0.5


def test_the_end_of_the_rate_limit_is_waited_for(clock: Time) -> None:
    with serving(Answer("", 429, {"X-RateLimit-Reset": clock.epoch(12)}), FINE) as stub:
        get(stub, clock)
    assert clock.slept == [12]


def test_the_reset_of_a_limit_that_is_not_reached_is_no_reason_to_wait(clock: Time) -> None:
    headers = {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": clock.epoch(55)}
    with serving(Answer("", 500, headers), FINE) as stub:
        get(stub, clock)
    assert clock.slept[0] <= 0.5


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset"])
def test_a_wait_beyond_patience_ends_at_once(header: str, clock: Time) -> None:
    value = "60" if header == "Retry-After" else clock.epoch(60)
    with serving(Answer("", 429, {header: value})) as stub:
        with pytest.raises(AlpacaBusy, match=r"\(429\), asked to wait 60 s"):
            get(stub, clock)
        assert len(stub.asked) == 1
    assert clock.slept == []


def test_waits_add_up_to_less_than_patience(clock: Time) -> None:
    with serving(Answer("", 503, {"Retry-After": "14"})) as stub:
        with pytest.raises(AlpacaSilent):
            get(stub, clock)
        assert len(stub.asked) == 3
    assert clock.slept == [14, 14]


def test_when_nothing_remains_the_next_request_waits_for_the_reset(clock: Time) -> None:
    budget = clock.budget()
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": clock.epoch(20)}
    with serving(Answer({}, headers=headers), FINE) as stub:
        for _ in range(2):
            adapter = PatientAdapter(clock.patience(), budget, clock.now)
            get(stub, clock, adapter=adapter)
    assert clock.slept == [20]


def test_when_nothing_remains_for_long_no_request_is_sent(clock: Time) -> None:
    budget = clock.budget()
    budget.close(50)
    with serving(FINE) as stub:
        with pytest.raises(AlpacaBusy, match="asked to wait 50 s"):
            get(stub, clock, adapter=PatientAdapter(clock.patience(), budget, clock.now))
        assert stub.asked == []


def test_a_server_that_hangs_ends_by_the_time_out(clock: Time) -> None:
    patience = Patience(read=0.1, attempts=2, first_wait=0.01)
    with serving(HANG) as stub:
        adapter, started = PatientAdapter(patience, RateBudget(), clock.now), time.monotonic()
        with pytest.raises(AlpacaSilent, match="nothing came in time"):
            get(stub, clock, adapter=adapter)
        assert time.monotonic() - started < 2
        assert len(stub.asked) == 2


def test_time_outs_end_with_patience(clock: Time) -> None:
    patience = Patience(read=5, total=0.3, first_wait=0.001)
    with serving(HANG) as stub:
        started = time.monotonic()
        with pytest.raises(AlpacaSilent):
            get(stub, clock, adapter=PatientAdapter(patience, RateBudget(), clock.now))
        assert time.monotonic() - started < 2


def test_after_patience_is_used_up_nothing_more_is_sent(clock: Time) -> None:
    adapter = PatientAdapter(Patience(read=5, total=0.1, first_wait=0.0), RateBudget(), clock.now)
    with serving(HANG, FINE) as stub:
        for _ in range(2):
            with pytest.raises(AlpacaSilent):
                get(stub, clock, adapter=adapter)
        assert len(stub.asked) == 1


def test_answers_cost_no_patience_however_long_they_take() -> None:
    adapter = PatientAdapter(Patience(total=0.8), RateBudget(), Time().now)

    def slowly(_: object) -> Answer:
        time.sleep(0.3)
        return FINE

    with serving(slowly) as stub:
        for _ in range(4):
            assert get(stub, Time(), adapter=adapter) == {"is": "fine"}


def test_an_answer_that_would_come_after_the_minute_is_not_waited_for() -> None:
    began = time.monotonic()
    adapter = PatientAdapter(Patience(), RateBudget(), Time().now, within_seconds=1.0)

    def slowly(_: object) -> Answer:
        time.sleep(0.6)
        return FINE

    with serving(slowly) as stub:
        assert get(stub, Time(), adapter=adapter) == {"is": "fine"}
        with pytest.raises(AlpacaSilent):
            get(stub, Time(), adapter=adapter)
        assert time.monotonic() - began < 2
        with pytest.raises(AlpacaSilent, match="too slow for this minute"):
            get(stub, Time(), adapter=adapter)
        assert len(stub.asked) == 2


def test_a_retry_that_would_come_after_the_minute_is_not_waited_for(clock: Time) -> None:
    adapter = PatientAdapter(clock.patience(), clock.budget(), clock.now, within_seconds=4)
    with serving(Answer("", 503, {"Retry-After": "5"}), FINE) as stub:
        with pytest.raises(AlpacaSilent):
            get(stub, clock, adapter=adapter)
        assert len(stub.asked) == 1
    assert clock.slept == []


def test_a_request_that_would_wait_for_its_turn_too_long_is_not_counted(clock: Time) -> None:
    budget = clock.budget(limit=1)
    budget.take()
    with pytest.raises(AlpacaBusy, match="60 s"):
        budget.take(within_seconds=59)
    budget.take(within_seconds=60)
    assert clock.slept == [60]


def test_a_server_that_is_not_there_does_not_answer(clock: Time) -> None:
    with serving(FINE) as stub:
        pass
    with pytest.raises(AlpacaSilent, match="the connection failed") as caught:
        get(stub, clock)
    assert caught.value.exit_code == 3
    assert caught.value.hint == "run: ops-pipeline doctor"
    assert "\n" not in str(caught.value)


def test_requests_and_bytes_of_the_wire_are_counted(clock: Time) -> None:
    adapter = PatientAdapter(clock.patience(), clock.budget(), clock.now)
    packed = gzip.compress(json.dumps({"is": "fine" * 1000}).encode())
    broken = Answer("broken", 500)
    with serving(broken, Answer(packed, headers={"Content-Encoding": "gzip"})) as stub:
        assert get(stub, clock, adapter=adapter) == {"is": "fine" * 1000}
    assert (adapter.requests, adapter.bytes) == (2, len(b"broken") + len(packed))


def test_a_window_holds_no_more_requests_than_its_limit(clock: Time) -> None:
    budget, sent = clock.budget(limit=3), []
    for _ in range(7):
        budget.take()
        sent.append(clock.passed)
        clock.passed += 10
    assert sent == [0, 10, 20, 60, 70, 80, 120]


def test_threads_share_one_window() -> None:
    waited: list[float] = []
    budget = RateBudget(4, 60.0, lambda: 0.0, waited.append)
    in_threads(8, budget.take)
    assert waited == [60] * 4


def in_threads(count: int, act: Callable[[], None]) -> None:
    threads = [Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
