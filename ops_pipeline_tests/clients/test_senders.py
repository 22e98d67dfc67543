"""Messages reach a webhook; one that is down, refuses or hangs holds nobody up."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ops_pipeline.clients.dead_man import ping
from ops_pipeline.clients.senders import Letter, _without_secrets, send
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.alerts import Kind
from ops_pipeline.local.ports import free_port
from ops_pipeline_tests.clients.webhook import Webhook, opened

pytestmark = pytest.mark.slow


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with opened() as made:
        yield made


def a_letter(url: str, number: int = 1) -> Letter:
    return Letter(number, url, "[HIGH] stuck", "level: high", Level.HIGH, Kind.OPENED)


def test_a_message_arrives_with_its_title_its_text_and_its_kind(hook: Webhook) -> None:
    assert send([a_letter(hook.url)]) == {1: None}
    (taken,) = hook.taken
    assert (taken["title"], taken["message"]) == ("[HIGH] stuck", "level: high")
    assert taken["type"] == "failure"


def test_one_that_refuses_and_one_that_is_down_keep_nobody_from_the_others(hook: Webhook) -> None:
    with opened() as other:
        other.answer = 500
        nobody = f"json://127.0.0.1:{free_port()}/hooks/another-token"
        letters = [a_letter(hook.url), a_letter(other.url, 2), a_letter(nobody, 3)]
        errors = send(letters)
    assert errors[1] is None
    assert "500" in str(errors[2])
    assert errors[3]
    assert not any("token" in str(error) for error in errors.values())
    assert len(hook.taken) == 1


def test_one_that_hangs_is_left_when_the_time_is_over(hook: Webhook) -> None:
    with opened() as silent:
        silent.answer = 0
        began = time.monotonic()
        slow = f"{silent.url}?rto=30"
        errors = send([a_letter(hook.url), a_letter(slow, 2)], seconds=10)
        assert time.monotonic() - began < 20
    assert errors == {1: None, 2: "no answer in 10 s"}


def test_messages_to_one_address_arrive_in_order(hook: Webhook) -> None:
    letters = [replace(a_letter(hook.url, n), title=str(n)) for n in range(5)]
    assert send(letters) == dict.fromkeys(range(5))
    assert hook.titles == [str(n) for n in range(5)]


def test_an_address_that_nobody_can_read_is_an_error(hook: Webhook) -> None:
    (error,) = send([a_letter("nonsense://secret-token-1234")]).values()
    assert error == "apprise cannot read its address"


def test_nothing_to_send_starts_nothing() -> None:
    assert send([]) == {}


@pytest.mark.parametrize(
    "url", ["slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "mailtos://me:pass12@host.org"]
)
def test_an_error_shows_no_part_of_the_address(url: str) -> None:
    error = _without_secrets(f"could not reach {url}\nat all", url)
    assert error
    assert error.startswith("could not reach ")
    assert not any(part in error for part in ("TIiajk", "A1BRTD", "pass12", "host.org", "\n"))


def test_the_dead_mans_switch_is_asked_and_holds_nobody_up(hook: Webhook) -> None:
    url = f"http://127.0.0.1:{hook.port}/ping/secret"
    assert ping(url) is None
    hook.answer = 500
    assert ping(url) == "it answers 500"
    hook.answer = 0
    began = time.monotonic()
    assert ping(url, seconds=0.5) == "ReadTimeout"
    assert time.monotonic() - began < 2
    assert ping("nonsense") == "UnsupportedProtocol"
    assert hook.pings == ["/ping/secret"] * 3
