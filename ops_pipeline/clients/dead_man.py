"""Tells somebody outside that all is watched: when nothing is told any more, they say so."""

import logging

PING_SECONDS = 5.0

log = logging.getLogger("alerts")


def ping(url: str, seconds: float = PING_SECONDS) -> bool:
    """Ask an address; False where it does not answer well. It holds nobody up for longer."""
    import httpx

    try:
        return httpx.get(url, timeout=seconds).is_success
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Without the address, which is a secret.
        log.warning("the dead man's switch does not answer: %s", type(error).__name__)
        return False
