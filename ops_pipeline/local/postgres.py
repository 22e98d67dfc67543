"""The PostgreSQL server that lives in the var folder and belongs to this installation alone."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import psutil

from ops_pipeline.domain.errors import BadConfiguration, NotRunning
from ops_pipeline.local.accounts import Account, server_account
from ops_pipeline.local.cluster import Cluster, draft_of, postmaster, shut_down
from ops_pipeline.local.ports import LOOPBACK, free_port, port_is_free
from ops_pipeline.local.processes import wait_until
from ops_pipeline.local.programs import SYSTEM_DIR, make_system_dir, programs_for, shipped_tree
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import connection_copy, connection_file, read_connection

SUPERUSER = "ops_pipeline"
LOCK_SECONDS = 180
READY_SECONDS = 120


@dataclass(frozen=True)
class Connection:
    """What the connection file holds."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    reader_password: str = field(repr=False)


FIELDS = [each.name for each in fields(Connection)]


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or "its folder"
        raise BadConfiguration(
            f"the embedded PostgreSQL cannot use {where}: {error.strerror}",
            hint="ops-pipeline doctor",
        ) from error


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of one var folder; any number of processes may hold one of these."""

    var_dir: Path

    @classmethod
    def in_folder(cls, var_dir: Path) -> "EmbeddedServer":
        """The server of this var folder, whether or not it exists yet."""
        return cls(var_dir.resolve())

    @property
    def log_file(self) -> Path:
        """What the server says; it survives restarts."""
        return self._folder / "server.log"

    @property
    def data_dir(self) -> Path | None:
        """Where the databases lie, once they do."""
        return next((path for path in self._places if (path / "PG_VERSION").exists()), None)

    @_one_line_errors()
    def start(self) -> None:
        """Make sure that the server takes connections at the connection file's address.

        The first call makes the data folder and the connection file. Committed rows survive
        whatever ended the server before. A port that somebody else took is replaced.

        Raises:
            BadConfiguration: folder, account or programs cannot be used.
            NotRunning: PostgreSQL gave up; the message is its own reason.
            TimedOut: it, or another start, does not get ready.
        """
        self._ensure()
        # From now on it runs until somebody stops it, whoever started it first.
        self._on_loan.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold a server that answers; the last holder of one that a holder started stops it."""
        handle = self._hold()
        try:
            if not self.is_running():
                self._on_loan.touch()
                self._ensure()
            yield
        finally:
            if self._on_loan.exists() and _takes_lock(handle):
                self.stop()
            os.close(handle)

    @_one_line_errors()
    def stop(self, timeout_seconds: float = 30) -> None:
        """Stop the server if it runs: sessions are cut, what they committed is kept.

        Raises:
            TimedOut: it is still there.
        """
        if not self._postmaster():
            return
        with self._locked():
            if process := self._postmaster():
                shut_down(process, timeout_seconds)
            self._on_loan.unlink(missing_ok=True)

    @_one_line_errors()
    def remove(self) -> None:
        """Stop the server and delete its databases, passwords and log for good."""
        self.stop()
        with self._locked():
            for place in self._places:
                for folder in (place, draft_of(place)):
                    shutil.rmtree(folder, ignore_errors=not folder.exists())
            for path in (connection_copy(self.var_dir), self._connection_file, self.log_file):
                path.unlink(missing_ok=True)

    @_one_line_errors()
    def is_running(self) -> bool:
        """Whether our own server takes connections; another one on its port does not count."""
        connection = self._connection()
        return connection is not None and self._postmaster() is not None and _answers(connection)

    @_one_line_errors()
    def pid(self) -> int | None:
        """The server's process, if it is alive."""
        process = self._postmaster()
        return process.pid if process else None

    @property
    def _connection_file(self) -> Path:
        return connection_file(self.var_dir)

    @property
    def _folder(self) -> Path:
        return self._connection_file.parent

    @property
    def _places(self) -> tuple[Path, Path]:
        digest = hashlib.sha256(str(self.var_dir).encode()).hexdigest()[:12]
        return self._folder / "data", SYSTEM_DIR / digest

    @property
    def _on_loan(self) -> Path:
        """Exists while the server runs for its holders alone."""
        return self._folder / "on_loan"

    @_one_line_errors()
    def _hold(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._folder / "holders", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_SH)
        return handle

    def _ensure(self) -> None:
        if self.is_running():
            return
        with self._locked():
            if not self._got_ready():
                self._start()

    def _start(self) -> None:
        found = self.data_dir
        account = server_account(found)
        data = found or self._place_for(account)
        cluster = Cluster(data, programs_for(account), account, self.log_file)
        connection = self._connection()
        # What stood in only one of the two files stands in both again.
        connection = self._keep(connection) if connection else self._new_connection(found)
        if found is None:
            cluster.create(connection.user, connection.password)
        cluster.clear_crash()
        self._launch(cluster, connection)

    def _launch(self, cluster: Cluster, kept: Connection) -> None:
        connection = self._with_free_port(kept)
        try:
            cluster.launch(connection.port)
        except NotRunning:
            # Between our look at the port and PostgreSQL's, somebody may have taken it.
            other = self._with_free_port(connection)
            if other == connection:
                raise
            cluster.launch(other.port)

    def _place_for(self, account: Account) -> Path:
        near, far = self._places
        if account.can_enter(self._folder):
            return near
        make_system_dir()
        return far

    def _postmaster(self) -> psutil.Process | None:
        data = self.data_dir
        return postmaster(data) if data else None

    def _got_ready(self) -> bool:
        """Whether it runs, after waiting for one that is just starting or stopping."""
        wait_until(
            lambda: self._postmaster() is None or self.is_running(),
            READY_SECONDS,
            "PostgreSQL is alive and did not answer",
            hint=f"tail {self.log_file}",
        )
        return self.is_running()

    def _connection(self) -> Connection | None:
        kept = read_connection(self.var_dir)
        return Connection(**{name: kept[name] for name in FIELDS}) if kept else None

    def _new_connection(self, data: Path | None) -> Connection:
        if data:
            raise BadConfiguration(
                f"{data} holds databases, but {self._connection_file} with their password is gone",
                hint=f"put the file back, or give the databases up: rm -r {data}",
            )
        password, reader_password = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        return self._keep(Connection(LOOPBACK, free_port(), SUPERUSER, password, reader_password))

    def _with_free_port(self, connection: Connection) -> Connection:
        if port_is_free(connection.port):
            return connection
        return self._keep(replace(connection, port=free_port()))

    def _keep(self, connection: Connection) -> Connection:
        for path in (connection_copy(self.var_dir), self._connection_file):
            replace_private(path, json.dumps(asdict(connection)))
        return connection

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            wait_until(
                lambda: _takes_lock(handle),
                LOCK_SECONDS,
                "another start or stop of PostgreSQL did not finish",
                hint=f"tail {self.log_file}",
            )
            yield
        finally:
            os.close(handle)


def _takes_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(connection: Connection) -> bool:
    program = shipped_tree() / "bin" / "pg_isready"
    address = ["-h", connection.host, "-p", str(connection.port), "-d", "postgres"]
    return Account().run([program, "-q", *address]).returncode == 0
