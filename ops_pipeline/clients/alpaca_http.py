"""How Alpaca is asked: within its rate, patiently, and only once for what changes something."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from threading import Lock
from typing import Any

from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from requests import PreparedRequest, RequestException, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectTimeout, ReadTimeout, SSLError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_random_exponential,
)
from urllib3.util import Timeout

from ops_pipeline.domain.errors import (
    BadConfiguration,
    BadInput,
    NotRunning,
    OperatorError,
    TimedOut,
)
from ops_pipeline.settings import AlpacaAccess

REQUESTS_PER_MINUTE = 200
DOCTOR = "run: ops-pipeline doctor"
KEYS = "set ALPACA_API_KEY and ALPACA_API_SECRET"


class AlpacaSilent(NotRunning):
    """Alpaca gave no usable answer; `asked` is how many seconds it wants us to wait."""

    def __init__(self, reason: str, asked: float = 0.0) -> None:
        super().__init__(f"Alpaca does not answer: {reason}", DOCTOR)
        self.asked = asked


class AlpacaBusy(TimedOut):
    """Alpaca wants fewer requests; `asked` is how many seconds it wants us to wait."""

    def __init__(self, asked: float) -> None:
        wish = f", asked to wait {asked:.0f} s" if asked else ""
        super().__init__(f"Alpaca's rate limit holds (429){wish}", "wait a minute, and try again")
        self.asked = asked


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds; `total` is what failures and waits may cost one fetch."""

    connect: float = 5.0
    read: float = 20.0
    total: float = 30.0
    attempts: int = 4
    first_wait: float = 0.5
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class RateBudget:
    """At most `limit` requests in any `per_seconds`, and none while Alpaca takes no more.

    Threads may share one; each process has its own, and so Alpaca's word counts too.
    """

    def __init__(
        self,
        limit: int = REQUESTS_PER_MINUTE,
        per_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sent = deque[float](maxlen=limit)
        self._per_seconds = per_seconds
        self._monotonic, self._sleep = monotonic, sleep
        self._opens_at = monotonic()
        self._lock = Lock()

    def take(self, within_seconds: float = inf) -> None:
        """Wait until one more request fits in, and count it.

        Raises:
            AlpacaBusy: that would take longer.
        """
        with self._lock:
            now = self._monotonic()
            is_full = len(self._sent) == self._sent.maxlen
            at = max(now, self._sent[0] + self._per_seconds) if is_full else now
            if at - now > within_seconds:
                raise AlpacaBusy(at - now)
            self._sent.append(at)
        if at > now:
            self._sleep(at - now)

    def close(self, seconds: float) -> None:
        """Alpaca takes no more requests for so long."""
        with self._lock:
            self._opens_at = max(self._opens_at, self._monotonic() + seconds)

    def closed_for(self) -> float:
        """How many seconds remain until Alpaca takes requests again."""
        return max(0.0, self._opens_at - self._monotonic())


class PatientAdapter(HTTPAdapter):
    """Sends the requests of one fetch in one thread, and counts them.

    A GET is repeated after a failed connection, a time-out, 429, 5xx and an answer that is no
    JSON. All else is sent once, and neither is left to alpaca-py, which would repeat it blindly.
    `requests` counts repetitions too, `bytes` what came over the wire without headers. All of it
    ends `within_seconds`, while the patience is for what fails.

    Raises:
        AlpacaSilent: there was no usable answer.
        AlpacaBusy: the rate limit holds for longer than patience lasts.
    """

    def __init__(
        self,
        patience: Patience,
        budget: RateBudget,
        now: Callable[[], datetime],
        within_seconds: float = inf,
    ) -> None:
        super().__init__()
        self._until = patience.monotonic() + within_seconds
        self._patience, self._budget, self._now = patience, budget, now
        self._patience_left = patience.total
        self._jitter = wait_random_exponential(multiplier=patience.first_wait)
        self.requests = 0
        self.bytes = 0

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """One answer, its body read."""
        attempts = self._patience.attempts if request.method == "GET" else 1
        retrying = Retrying(
            retry=retry_if_exception_type((AlpacaSilent, AlpacaBusy)),
            stop=lambda state: (
                state.attempt_number >= attempts or state.upcoming_sleep >= self._left()
            ),
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(self._attempt, request, *args, **options)

    def _attempt(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        self._wait_until_open()
        # To keep to the rate is no failure, and costs no patience.
        self._budget.take(self._until - self._patience.monotonic())
        started = self._patience.monotonic()
        try:
            return self._answer(request, *args, **options)
        except (AlpacaSilent, AlpacaBusy):
            self._patience_left -= self._patience.monotonic() - started
            raise

    def _answer(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        patience = self._patience
        options["timeout"] = Timeout(self._left(), connect=patience.connect, read=patience.read)
        self.requests += 1
        try:
            response = super().send(request, *args, **options)
            # Read here, because a body that breaks off must be asked for again.
            response.content  # noqa: B018
        except RequestException as error:
            raise AlpacaSilent(_reason(error)) from error
        self.bytes += response.raw.tell()
        self._check(response, expects_json=request.method == "GET")
        return response

    def _check(self, response: Response, *, expects_json: bool) -> None:
        status, headers = response.status_code, response.headers
        is_spent = status == 429 or headers.get("X-RateLimit-Remaining") == "0"
        # Reset stands in every answer, and means something only when nothing remains.
        reset = headers.get("X-RateLimit-Reset", "") if is_spent else ""
        now = self._now()
        asked = _seconds_to(headers.get("Retry-After", ""), now) or _seconds_to_epoch(reset, now)
        if is_spent:
            self._budget.close(asked)
        if status == 429:
            raise AlpacaBusy(asked)
        if status >= 500:
            raise AlpacaSilent(f"status {status}", asked)
        if expects_json and status < 400 and not _is_json(response):
            raise AlpacaSilent(f"what it sends is no JSON (status {status})")

    def _wait_until_open(self) -> None:
        if self._patience.monotonic() >= self._until:
            raise AlpacaSilent("it was too slow for this minute")
        if self._left() <= 0:
            raise AlpacaSilent(f"waited {self._patience.total:g} s in all")
        closed_for = self._budget.closed_for()
        if closed_for >= self._left():
            raise AlpacaBusy(closed_for)
        if closed_for:
            self._sleep(closed_for)

    def _wait(self, state: RetryCallState) -> float:
        return max(self._jitter(state), _asked(state))

    def _sleep(self, seconds: float) -> None:
        self._patience_left -= seconds
        self._patience.sleep(seconds)

    def _left(self) -> float:
        """How many seconds what fails, and all of it, may still take."""
        return min(self._patience_left, self._until - self._patience.monotonic())


@contextmanager
def patient(client: RESTClient, adapter: PatientAdapter) -> Iterator[None]:
    """Let a client of alpaca-py send through this adapter; its connections are closed after."""
    with client._session as session:  # noqa: SLF001 - alpaca-py has no other way to set a time-out
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        yield


def refusal(error: APIError, access: AlpacaAccess) -> OperatorError:
    """What an answer of 4xx means to an operator: one line without keys, and what to do."""
    status, message = error.status_code, told(error, access)
    if status == 401:
        return BadConfiguration("Alpaca refused the key (401)", KEYS)
    if "subscription" in message.lower():
        told_so = f"the account is not entitled to feed {access.feed} ({status}: {message})"
        return BadConfiguration(told_so, "set OPS_ALPACA_FEED=iex")
    if status == 403:
        return BadConfiguration(f"Alpaca forbids it (403: {message})", KEYS)
    return BadInput(f"Alpaca refused the request ({status}: {message})", DOCTOR)


def told(error: APIError, access: AlpacaAccess) -> str:
    """What Alpaca says of a refusal, in one line of at most 200 signs without keys."""
    text = str(error)
    # Not everything that stands before Alpaca speaks JSON.
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        text = str(json.loads(text)["message"])
    for secret in (access.key, access.secret):
        text = text.replace(secret, "...")
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.split())[:200]


def _reason(error: RequestException) -> str:
    """What failed, without the address: it is long, and says nothing to an operator."""
    if isinstance(error, ConnectTimeout):
        return "no connection in time"
    if isinstance(error, ReadTimeout):
        return "nothing came in time"
    if isinstance(error, SSLError):
        return "its certificate is not accepted"
    return f"the connection failed ({type(error).__name__})"


def _asked(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.asked if isinstance(error, AlpacaSilent | AlpacaBusy) else 0.0


def _seconds_to(retry_after: str, now: datetime) -> float:
    """Seconds of a Retry-After header, which holds a count or a date; 0 where it says nothing."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    # A date without a zone is in UTC, by the standard.
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _seconds_to_epoch(reset: str, now: datetime) -> float:
    return max(0.0, float(reset) - now.timestamp()) if reset.isdecimal() else 0.0


def _is_json(response: Response) -> bool:
    try:
        response.json()
    except (ValueError, RecursionError):
        return False
    return True
