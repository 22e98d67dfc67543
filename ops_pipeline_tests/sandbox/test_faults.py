import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from alpaca.trading.models import Clock as AlpacaClock

from ops_pipeline.domain.bars import fault
from ops_pipeline.sandbox.faults import Faults, Rule, Schedule, is_struck
from ops_pipeline_tests.builders import a_bar
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.traders import filled, flat_world, heard, market_order
from ops_pipeline_tests.sandbox.worlds import (
    HEADERS,
    MINUTE,
    NOW,
    WEB,
    Clock,
    a_world,
    ask_bars,
    trader,
)

RUNNING = NOW.replace(second=0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(flat_world()) as address:
        yield address


def order(url: str, *rules: dict[str, Any], seed: int = 7) -> None:
    answer = WEB.post(f"{url}/control/faults", json={"rules": rules, "seed": seed})
    assert answer.status_code == 200, answer.text


def ask(url: str, path: str = "/v2/account") -> httpx.Response:
    return WEB.get(url + path, headers=HEADERS)


def frames(rule: dict[str, Any], count: int) -> list[str]:
    """The events that a client receives of an order of one share, under a rule."""
    with heard(flat_world()) as (url, [listener]):
        order(url, {"match": "/stream", **rule})
        filled(trader(url), market_order(qty=1))
        give_up = time.monotonic() + 5
        while len(listener.seen) < count and time.monotonic() < give_up:
            time.sleep(0.01)
        # One more than expected would be here by now.
        time.sleep(0.1)
        return [str(update.event) for update in listener.seen]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504])
def test_a_status_is_answered_in_place_of_the_answer(url: str, status: int) -> None:
    order(url, {"match": "/v2/account", "kind": "status", "status": status, "retry_after": 3})
    struck = ask(url)
    assert (struck.status_code, struck.headers["retry-after"]) == (status, "3")
    assert set(struck.json()) == {"code", "message"}
    assert "x-ratelimit-remaining" in struck.headers
    assert ask(url, "/v2/clock").status_code == 200
    order(url, {"match": "/v1", "kind": "status", "status": status})
    assert "message" in ask(url, "/v1/corporate-actions").json()


def test_an_answer_is_late() -> None:
    with served(flat_world()) as url:
        order(url, {"kind": "delay", "seconds": 0.3, "times": 1})
        spent = []
        for _ in range(2):
            start = time.monotonic()
            assert ask(url).status_code == 200
            spent.append(time.monotonic() - start)
    assert spent[0] >= 0.3 > spent[1]


def test_a_dropped_request_has_no_answer_but_its_effect() -> None:
    with served(flat_world()) as url:
        order(url, {"kind": "drop", "methods": ["POST"]})
        body = market_order(client_order_id="mine").to_request_fields()
        with pytest.raises(httpx.RemoteProtocolError):
            WEB.post(f"{url}/v2/orders", json=body, headers=HEADERS)
        assert trader(url).get_order_by_client_id("mine").qty == "10"
        log = WEB.get(f"{url}/control/requests").json()
    assert (log[0]["status"], log[0]["bytes"]) == (0, 0)


def test_a_malformed_answer_is_cut_off() -> None:
    with served(flat_world()) as url:
        order(url, {"kind": "malformed"})
        answer = ask(url)
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"delimiter|string|Expecting"):
        answer.json()


def test_a_body_is_answered_as_it_is_given() -> None:
    with served(flat_world()) as url:
        order(url, {"kind": "body", "body": "<html>down</html>", "status": 502})
        answer = ask(url)
        assert (answer.status_code, answer.text) == (502, "<html>down</html>")
        order(url, {"kind": "body", "body": ""})
        assert (ask(url).status_code, ask(url).text) == (200, "")


def test_feeds_are_struck_too() -> None:
    with served(a_world()) as url:
        order(url, {"match": "/feeds/", "kind": "status", "status": 503, "retry_after": 60})
        answer = WEB.get(f"{url}/feeds/markets.rss")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


def test_the_clock_is_ahead_when_it_is_told_to_be() -> None:
    with served(flat_world()) as url:
        order(url, {"kind": "clock_skew", "seconds": 90})
        clock = trader(url).get_clock()
    assert isinstance(clock, AlpacaClock)
    assert clock.timestamp == NOW + timedelta(seconds=90)


def test_the_newest_complete_minute_is_half_formed_for_a_while() -> None:
    clock = Clock()
    with served(a_world(clock)) as url:

        def newest() -> Any:
            return ask_bars(url, ["MSFT"], RUNNING - 2 * MINUTE, RUNNING - MINUTE)["MSFT"]

        whole = newest()
        order(url, {"kind": "half_formed", "seconds": 31})
        half = newest()
        clock.now += timedelta(seconds=1)
        healed = newest()
    assert half[1].volume == whole[1].volume // 2
    assert half[0] == whole[0]
    assert healed == whole


def test_a_share_of_bars_is_revised_when_they_are_asked_for_again() -> None:
    with served(a_world()) as url:

        def ask_all() -> Any:
            return ask_bars(url, ["AAPL", "MSFT"], NOW - 100 * MINUTE, NOW - MINUTE)

        original = ask_all()
        order(url, {"kind": "revise", "rate": 0.3})
        first, second, third = ask_all(), ask_all(), ask_all()
    assert first == original
    pairs = [(a, b) for s in ("AAPL", "MSFT") for a, b in zip(first[s], second[s], strict=True)]
    revised = [(a, b) for a, b in pairs if a != b]
    assert 0.15 < len(revised) / len(pairs) < 0.45
    assert all(a.close != b.close and a.volume < b.volume and b.high >= b.close for a, b in revised)
    assert third == second


def test_a_bar_that_a_page_only_looked_at_counts_as_not_told() -> None:
    with served(a_world()) as url:
        order(url, {"kind": "revise"})
        query = {
            "symbols": "AAPL",
            "timeframe": "1Min",
            "limit": "2",
            "start": "2025-03-11T15:20:00Z",
        }
        first = WEB.get(f"{url}/v2/stocks/bars", params=query, headers=HEADERS).json()
        more = {**query, "page_token": first["next_page_token"]}
        second = WEB.get(f"{url}/v2/stocks/bars", params=more, headers=HEADERS).json()
        order(url)
        honest = WEB.get(f"{url}/v2/stocks/bars", params=more, headers=HEADERS).json()
    assert second == honest


def test_changed_bars_are_usable_bars() -> None:
    faults = Faults(Clock(a_bar().minute + 65 * timedelta(seconds=1)))
    rules = [Rule(kind="half_formed", seconds=30), Rule(kind="revise")]
    faults.order(Schedule(rules=rules))
    told = [faults.changed(a_bar()) for _ in range(2)]
    assert all(fault(bar) is None for bar in told)
    assert told[0] != told[1] != a_bar()


@pytest.mark.parametrize(
    ("rule", "events"),
    [
        ({"kind": "drop"}, []),
        ({"kind": "mute"}, []),
        ({"kind": "drop", "times": 1}, ["fill"]),
        ({"kind": "duplicate", "times": 1}, ["new", "new", "fill"]),
        ({"kind": "reorder", "times": 1}, ["fill", "new"]),
        ({"kind": "reorder"}, ["fill", "new"]),
        ({"kind": "delay", "seconds": 0.2}, ["new", "fill"]),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_frame_is_struck(rule: dict[str, Any], events: list[str]) -> None:
    assert frames(rule, len(events)) == events


def test_a_frame_that_nothing_overtakes_comes_in_the_end() -> None:
    with heard(flat_world()) as (url, [listener]):
        order(url, {"match": "/stream", "kind": "reorder"})
        trader(url).submit_order(market_order(symbol="REJ", qty=1))
        give_up = time.monotonic() + 5
        while not listener.seen and time.monotonic() < give_up:
            time.sleep(0.01)
        assert [update.event for update in listener.seen] == ["rejected"]


def test_a_rule_strikes_inside_its_window_only() -> None:
    clock = Clock()
    window = {"from": (NOW + MINUTE).isoformat(), "until": (NOW + 2 * MINUTE).isoformat()}
    with served(flat_world(clock=clock)) as url:
        order(url, {"kind": "status", "status": 500, **window})
        seen = []
        for clock.now in (
            NOW,
            NOW + MINUTE,
            NOW + 2 * MINUTE - timedelta(seconds=1),
            NOW + 2 * MINUTE,
        ):
            seen.append(ask(url).status_code)
    assert seen == [200, 500, 500, 200]


def test_a_rule_strikes_its_methods_only() -> None:
    with served(flat_world()) as url:
        order(url, {"kind": "status", "status": 500, "methods": ["POST", "DELETE"]})
        assert ask(url).status_code == 200
        assert WEB.delete(f"{url}/v2/orders", headers=HEADERS).status_code == 500


def test_a_schedule_can_be_computed() -> None:
    rules = [
        {"match": "/v2/clock", "kind": "status", "status": 503, "rate": 0.5},
        {"match": "/v2", "kind": "status", "status": 500, "rate": 0.3},
    ]
    expected = []
    for n in range(1, 21):
        first, second = is_struck(42, 0, n, 0.5), is_struck(42, 1, n, 0.3)
        expected.append(503 if first else 500 if second else 200)
    with served(flat_world()) as url:
        for _ in range(2):
            order(url, *rules, seed=42)
            assert [ask(url, "/v2/clock").status_code for _ in range(20)] == expected
        order(url, *rules, seed=43)
        assert [ask(url, "/v2/clock").status_code for _ in range(20)] != expected


def test_rates_are_kept() -> None:
    struck = sum(is_struck(7, 0, n, 0.2) for n in range(2_000))
    assert 330 < struck < 470
    assert not any(is_struck(7, 0, n, 0.0) for n in range(100))
    assert all(is_struck(7, 0, n, 1.0) for n in range(100))


def test_the_schedule_is_told_with_its_counts_and_ends() -> None:
    with served(flat_world()) as url:
        rule = {"match": "/v2", "kind": "status", "status": 500, "times": 1, "rate": 1.0}
        order(url, rule)
        assert [ask(url).status_code for _ in range(2)] == [500, 200]
        report = WEB.get(f"{url}/control/faults").json()
        assert report == {"rules": [{**rule, "seconds": 0.0, "matched": 2, "struck": 1}], "seed": 7}
        assert WEB.delete(f"{url}/control/faults").status_code == 204
        assert WEB.get(f"{url}/control/faults").json()["rules"] == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "explode"}, "kind"),
        ({"kind": "drop", "rate": 1.5}, "rate"),
        ({"kind": "status"}, "needs status"),
        ({"kind": "status", "status": 418}, "status"),
        ({"kind": "body"}, "needs body"),
        ({"kind": "delay"}, "needs seconds"),
        ({"kind": "half_formed"}, "needs seconds"),
        ({"kind": "clock_skew"}, "needs seconds"),
        ({"kind": "drop", "from": "2025-03-11T00:00:00"}, "timezone"),
        ({"kind": "drop", "times": 0}, "times"),
        ({"kind": "drop", "methods": ["PUT"]}, "methods"),
        ({"kind": "drop", "colour": "red"}, "colour"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(url: str, rule: dict[str, Any], words: str) -> None:
    order(url, {"kind": "drop", "match": "/nothing"})
    answer = WEB.post(f"{url}/control/faults", json={"rules": [rule]})
    kept = WEB.get(f"{url}/control/faults").json()["rules"]
    assert answer.status_code == 422
    assert words in answer.json()["message"]
    assert [rule["match"] for rule in kept] == ["/nothing"]


def test_the_log_tells_of_each_request_and_of_no_secret() -> None:
    with served(flat_world()) as url:
        answer = ask(url, "/v2/orders?limit=3&api_secret=hush")
        WEB.get(f"{url}/v2/nowhere", headers=HEADERS)
        log = WEB.get(f"{url}/control/requests")
        assert WEB.delete(f"{url}/control/requests").status_code == 204
        assert WEB.get(f"{url}/control/requests").json() == []
    first, second = log.json()
    expected = {"method": "GET", "path": "/v2/orders", "query": "limit=3", "status": 200}
    assert first == {"time": NOW.isoformat(), **expected, "bytes": len(answer.content)}
    assert (second["path"], second["status"]) == ("/v2/nowhere", 404)
    assert "sandbox-secret" not in log.text
    assert "hush" not in log.text


FOREIGN = [
    ({"Origin": "http://evil.example"}, 403),
    ({"Host": "evil.example"}, 421),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Authorization": ""}, 401),
    ({"Authorization": "Bearer other"}, 401),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "requests"),
        ("DELETE", "requests"),
        ("GET", "faults"),
        ("POST", "faults"),
        ("DELETE", "faults"),
        ("POST", "splits"),
    ],
)
def test_controls_answer_to_no_other_page_and_to_nobody_without_the_token(
    url: str, headers: dict[str, str], status: int, method: str, path: str
) -> None:
    body = {"json": {"rules": []}} if method == "POST" else {}
    answer = WEB.request(method, f"{url}/control/{path}", headers=headers, **body)
    assert answer.status_code == status


def test_controls_take_json_only(url: str) -> None:
    assert WEB.post(f"{url}/control/faults", content='{"rules": []}').status_code == 415
