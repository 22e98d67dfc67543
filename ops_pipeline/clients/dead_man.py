"""Tells somebody outside that all is watched: when nothing is told any more, they say so."""

import logging

PING_SECONDS = 5.0

log = logging.getLogger("alerts")


def ping(url: str, seconds: float = PING_SECONDS) -> str | None:
    """Ask an address; what is wrong with it, None where it answers well.

    It holds nobody up for longer. Nothing that is said holds the address, which is a secret.
    """
    import httpx

    try:
        answer = httpx.get(url, timeout=seconds)
        error = None if answer.is_success else f"it answers {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        error = type(failure).__name__
    if error:
        log.warning("the dead man's switch does not answer well: %s", error)
    return error
