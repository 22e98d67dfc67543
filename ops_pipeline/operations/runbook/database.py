"""The database: whether it answers, and why it does not."""

from collections.abc import Callable, Iterator

from sqlalchemy.exc import OperationalError

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.operations.runbook.causes import NOT_MIGRATED, not_migrated, verdict_of
from ops_pipeline.operations.runbook.changes import by_hand, mend
from ops_pipeline.operations.runbook.section import Cause, Change, Found, OwnCheck, Scene, Section
from ops_pipeline.storage import runbook

ANSWERS = OwnCheck("database_answers", "it answers, and no migration waits")
# From here on a burst of one more process may find no session.
SCARCE_SHARE = 0.9

REFUSED = Cause(
    "REFUSED",
    "Nobody listens at the database's address.",
    Level.CRITICAL,
    "starts the embedded server; of another server, a person does",
)
TIMEOUT = Cause(
    "TIMEOUT",
    "The database's address does not answer at all: a firewall, a security group, a wrong subnet.",
    Level.CRITICAL,
    "a person lets this machine in at the server's port",
)
AUTH = Cause(
    "AUTH",
    "The database refuses the user or the password.",
    Level.CRITICAL,
    "a person corrects DATABASE_URL, or the secret ops-pipeline/db",
)
TOO_MANY_CONNECTIONS = Cause(
    "TOO_MANY_CONNECTIONS",
    "The database has no session left, or nearly none.",
    Level.CRITICAL,
    "ends this user's sessions that have been idle for ten minutes; without one left, a person",
)
NAME_UNKNOWN = Cause(
    "NAME_UNKNOWN",
    "The name of the database's host is not known.",
    Level.CRITICAL,
    "a person corrects DATABASE_URL or DB_HOST, or the name server",
)
NO_DATABASE = Cause(
    "NO_DATABASE",
    "The server answers, and has no database of this installation.",
    Level.CRITICAL,
    "a person runs init, which makes databases, tables and roles",
)
UNREACHABLE = Cause(
    "UNREACHABLE",
    "The database cannot be used, for a reason that is none of the others.",
    Level.CRITICAL,
    "a person reads what the server says",
)
# What the server or the client says, and what it means.
_SIGNS = (
    ("connection refused", REFUSED),
    ("no such file or directory", REFUSED),
    ("the database system is s", REFUSED),
    ("timeout", TIMEOUT),
    ("timed out", TIMEOUT),
    ("no route to host", TIMEOUT),
    ("network is unreachable", TIMEOUT),
    ("authentication failed", AUTH),
    ("no password supplied", AUTH),
    ("no pg_hba.conf entry", AUTH),
    ("too many clients", TOO_MANY_CONNECTIONS),
    ("too many connections", TOO_MANY_CONNECTIONS),
    ("remaining connection slots", TOO_MANY_CONNECTIONS),
    ("resolve host", NAME_UNKNOWN),
    ("translate host name", NAME_UNKNOWN),
    ("name or service not known", NAME_UNKNOWN),
    ("does not exist", NO_DATABASE),
)


def _look(scene: Scene) -> Iterator[Found]:
    """Connect as the pipeline does, and count tables and sessions."""
    try:
        with scene.engine.connect() as connection:
            sessions = runbook.sessions(connection)
    except OperationalError as error:
        said = _first_line(error)
        cause = next((cause for sign, cause in _SIGNS if sign in said.lower()), UNREACHABLE)
        yield Found(cause, {"at": _where(scene), "said": said}, _REMEDIES[cause](scene))
        return
    if sessions.count >= SCARCE_SHARE * sessions.max_count:
        what = f"end {sessions.idle} sessions that have been idle for ten minutes"
        again = "ops-pipeline down && ops-pipeline up"
        end = mend(scene, what, again, runbook.end_idle_sessions)
        yield Found(TOO_MANY_CONNECTIONS, sessions.__dict__, [end])
    yield from not_migrated(scene)


def _first_line(error: OperationalError) -> str:
    """What libpq said, without the addresses that it tried; it never holds a password."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return (lines or ["no reason given"])[0][:200]


def _where(scene: Scene) -> str:
    server = scene.settings.server
    return f"{server.host}:{server.port}, {scene.settings.pipeline_database}" if server else "-"


def _start_server(scene: Scene) -> list[Change]:
    if not scene.settings.is_embedded:
        return [by_hand(f"start PostgreSQL at {_where(scene)}", "its own service, or RDS's page")]
    server = EmbeddedServer.in_folder(scene.settings.var_dir)
    return [Change("start the embedded PostgreSQL", "ops-pipeline up", server.start)]


def _let_in(scene: Scene) -> list[Change]:
    server = scene.settings.server
    port = server.port if server else 5432
    return [
        by_hand(
            f"let this machine in at port {port}",
            "aws ec2 describe-security-groups --group-ids {RDS_SECURITY_GROUP}",
        )
    ]


def _told(what: str, command: str) -> Callable[[Scene], list[Change]]:
    return lambda _: [by_hand(what, command)]


_REMEDIES: dict[Cause, Callable[[Scene], list[Change]]] = {
    REFUSED: _start_server,
    TIMEOUT: _let_in,
    AUTH: _told("correct user and password", "DATABASE_URL, or DB_USER and DB_PASSWORD"),
    TOO_MANY_CONNECTIONS: _told("end what holds sessions", "ops-pipeline down && ops-pipeline up"),
    NAME_UNKNOWN: _told("correct the host's name", "DATABASE_URL, or DB_HOST"),
    NO_DATABASE: _told("make the databases", "ops-pipeline init"),
    UNREACHABLE: _told("read what the server says", "ops-pipeline doctor"),
}


def _verify(scene: Scene) -> list[Verdict]:
    found = list(_look(scene))
    if found:
        return [verdict_of(ANSWERS, found, "")]
    with scene.engine.connect() as connection:
        names = runbook.tables(connection)
    observed = {"tables": names}
    told = f"it answers, {len(names)} tables"
    return [Verdict(ANSWERS.name, Level.NORMAL, told, observed, ANSWERS.normal)]


_CAUSES = (
    REFUSED,
    TIMEOUT,
    AUTH,
    TOO_MANY_CONNECTIONS,
    NAME_UNKNOWN,
    NO_DATABASE,
    UNREACHABLE,
    NOT_MIGRATED,
)
SECTIONS = (
    Section(
        name="check-rds-connectivity",
        heading="Check RDS Connectivity",
        symptom="Whether the database can be reached, and has its tables.",
        own=(ANSWERS,),
        causes=_CAUSES,
        look=_look,
        verify=_verify,
        is_about_database=True,
    ),
    Section(
        name="rds-connection-timeout",
        heading="Issue: RDS Connection Timeout",
        symptom="Services log that the database does not answer.",
        own=(ANSWERS,),
        causes=_CAUSES,
        look=_look,
        verify=_verify,
        is_about_database=True,
    ),
)
