"""The trade stream: whether its process runs, with which key, database and code."""

import re
from collections.abc import Iterator
from pathlib import Path

from ops_pipeline import __version__
from ops_pipeline.clients.alpaca_account import clock_skew_seconds
from ops_pipeline.clients.live import access_of
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.errors import BadConfiguration, BadInput, OperatorError
from ops_pipeline.domain.gates import ACTIVE
from ops_pipeline.domain.stream import (
    ADDS_UP,
    IS_LIVE,
    StreamHealth,
    live_verdict,
    stream_state,
    sums_verdict,
)
from ops_pipeline.local.keeper import log_dir, table_of
from ops_pipeline.operations.runbook.causes import verdict_of
from ops_pipeline.operations.runbook.changes import by_hand, restart, start_processes
from ops_pipeline.operations.runbook.section import Cause, Found, OwnCheck, Scene, Section
from ops_pipeline.settings import KEEPER, STREAM, Settings
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.stream import read_health

# As the process introduces itself in its log.
_FOLLOWING = re.compile(
    r"^following \S+ with key \S+, database (\S+) at (\S+), code \S+$", re.MULTILINE
)
TAIL_BYTES = 200_000
IS_OURS = OwnCheck(
    "stream_is_ours", "its keys are good, its database and its code are those of now"
)

NOT_FOLLOWED = Cause(
    "NOT_FOLLOWED",
    "This mode has no account at a broker: there is nothing to follow.",
    Level.NORMAL,
    "nothing",
)
SECRET_KEYS = Cause(
    "SECRET_KEYS",
    "Alpaca's keys are missing, or Alpaca refuses them.",
    Level.HIGH,
    "a person corrects ALPACA_API_KEY and ALPACA_API_SECRET, or the secret ops-pipeline/alpaca",
)
DB_HOST = Cause(
    "DB_HOST",
    "The process works with another database than these settings name.",
    Level.HIGH,
    "restarts it; where the environment names the database, all, in the environment of the fix",
)
STALE_CODE = Cause(
    "STALE_CODE",
    "The process runs another version of the code.",
    Level.HIGH,
    "restarts it",
)
NOT_RUNNING = Cause(
    "NOT_RUNNING",
    "No process follows the account.",
    Level.HIGH,
    "starts the keeper, which starts what does not run",
)
SILENT = Cause(
    "SILENT",
    "The process runs, and the broker is not heard.",
    Level.HIGH,
    "restarts it",
)
DOES_NOT_ADD_UP = Cause(
    "DOES_NOT_ADD_UP",
    "The account holds another quantity than its orders come to.",
    Level.CRITICAL,
    "a person compares it with Alpaca's own page",
)


def _look(scene: Scene) -> Iterator[Found]:
    """Keys, database, code, process, silence and sums, in the order in which they are mended."""
    if not scene.settings.mode.is_followed:
        yield Found(NOT_FOLLOWED, {"mode": scene.settings.mode.value})
        return
    health = _health(scene)
    yield from _wrong(scene, health)
    yield from _liveness(scene, health)
    sums = sums_verdict(health)
    if not sums.is_normal:
        compare = by_hand(
            "compare it with Alpaca's own page; accept what the broker has right",
            "ops-pipeline trade-stream accept TICKER --reason WHY",
        )
        yield Found(DOES_NOT_ADD_UP, {"finding": sums.finding}, [compare])


def _wrong(scene: Scene, health: StreamHealth | None) -> Iterator[Found]:
    """The runbook's three: secrets, the database's host, stale code."""
    yield from _keys(scene)
    yield from _database(scene)
    yield from _code(scene, health)


def _keys(scene: Scene) -> Iterator[Found]:
    """Whether the keys are there, and good for this account; a broker that is away says nothing."""
    correct = by_hand("correct the keys", "ALPACA_API_KEY and ALPACA_API_SECRET, then up again")
    try:
        clock_skew_seconds(access_of(scene.settings), lambda: scene.now)
    except (BadConfiguration, BadInput) as error:
        yield Found(SECRET_KEYS, {"said": str(error)}, [correct])
    except OperatorError:
        return


def _database(scene: Scene) -> Iterator[Found]:
    if elsewhere := other_database(scene.settings):
        told, ours = elsewhere
        # Our own stands in a file that each start reads; another in the keeper's environment.
        name = STREAM if scene.settings.is_embedded else KEEPER
        again = restart(scene, name, lambda: other_database(scene.settings) is None)
        yield Found(DB_HOST, {"process": told, "settings": ours}, [again])


def other_database(settings: Settings) -> tuple[str, str] | None:
    """The database that the running process works with, and ours, where they are not the same."""
    said, server = _introduction(settings), settings.server
    if not (table_of(settings).find(STREAM) and said and server):
        return None
    ours = f"{settings.pipeline_database} at {server.host}:{server.port}"
    return None if said == ours else (said, ours)


def _code(scene: Scene, health: StreamHealth | None) -> Iterator[Found]:
    if health and health.is_held and health.code_version != __version__:
        told = {"runs": health.code_version, "installed": __version__}
        yield Found(STALE_CODE, told, [restart(scene, STREAM)])


def _runs(scene: Scene) -> bool:
    return table_of(scene.settings).find(STREAM) is not None


def _introduction(settings: Settings) -> str | None:
    """Which database the process said that it works with, when it started last."""
    found = _FOLLOWING.findall(_tail(log_dir(settings) / f"{STREAM}.log"))
    return " at ".join(found[-1]) if found else None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _liveness(scene: Scene, health: StreamHealth | None) -> Iterator[Found]:
    state, reason = stream_state(health, scene.now)
    if state == ACTIVE:
        return
    told = {"found": reason, "last_said": health.reason if health else ""}
    if not _runs(scene):
        yield Found(NOT_RUNNING, told, [start_processes(scene)])
    else:
        yield Found(SILENT, told, [restart(scene, STREAM)])


def _health(scene: Scene) -> StreamHealth | None:
    with scene.engine.connect() as connection:
        return read_health(connection, ACCOUNT)


def _verify(scene: Scene) -> list[Verdict]:
    if not scene.settings.mode.is_followed:
        return []
    health = _health(scene)
    ours = verdict_of(IS_OURS, _wrong(scene, health), "keys, database and code are right")
    return [live_verdict(health, scene.now), sums_verdict(health), ours]


SECTIONS = (
    Section(
        name="trade-stream-not-running",
        heading="Issue: Trade-Stream WebSocket Not Running",
        symptom="The process trade-stream ends, or positions do not follow the account.",
        own=(
            OwnCheck(IS_LIVE, "heard within 30 s"),
            OwnCheck(ADDS_UP, "the account holds what its orders come to"),
            IS_OURS,
        ),
        causes=(
            NOT_FOLLOWED,
            SECRET_KEYS,
            DB_HOST,
            STALE_CODE,
            NOT_RUNNING,
            SILENT,
            DOES_NOT_ADD_UP,
        ),
        look=_look,
        verify=_verify,
        in_replay=False,
    ),
)
