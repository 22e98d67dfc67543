"""One PostgreSQL data folder: made, cleared of a crash's remains, started and stopped."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.local.accounts import Account
from ops_pipeline.local.ports import LOOPBACK
from ops_pipeline.local.processes import is_alive, send_signal, wait_until
from ops_pipeline.private_files import replace_private

RECOVERY_SECONDS = 120
ORPHAN_SECONDS = 20
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "idle_in_transaction_session_timeout": "60s",
}


@dataclass(frozen=True)
class Cluster:
    """A data folder, with what it takes to run a server on it."""

    data: Path
    programs: Path
    account: Account
    log_file: Path

    def create(self, user: str, password: str) -> None:
        """Make the data folder with its superuser; it is complete or absent.

        Raises:
            NotRunning: initdb failed; the message says why.
        """
        draft = draft_of(self.data)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.account.give(draft)
        done = self._initdb(draft, user, password)
        if done.returncode:
            raise NotRunning(
                f"PostgreSQL could not make its data folder {self.data}: {_reason(done.stdout)}",
                hint="ops-pipeline doctor",
            )
        draft.rename(self.data)

    def clear_crash(self) -> None:
        """Remove what a killed server left behind; call it only when none is alive.

        PostgreSQL would take any live process, or a zombie, with the pid in its old pid file
        for itself, and it cannot start while backends of the dead server hold its memory.

        Raises:
            TimedOut: a backend of the dead server does not end.
        """
        orphans = [process for process in psutil.process_iter() if _works_in(process, self.data)]
        send_signal(orphans, signal.SIGQUIT)
        wait_until(
            lambda: not any(map(is_alive, orphans)),
            ORPHAN_SECONDS,
            "the backends of a killed PostgreSQL did not end",
            hint=f"kill -9 {' '.join(str(process.pid) for process in orphans)}",
        )
        _pid_file(self.data).unlink(missing_ok=True)

    def launch(self, port: int) -> None:
        """Start the server; when this returns, it has recovered and takes connections.

        Raises:
            NotRunning: it gave up; the message is its last FATAL line.
        """
        waiting = ["-w", "-t", str(RECOVERY_SECONDS)]
        options: list[str | Path] = ["-D", self.data, *waiting, "-o", f"-p {port}"]
        handle = os.open(self.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as log:
            before = os.fstat(handle).st_size
            done = self.account.run([self.programs / "pg_ctl", "start", *options], output=log)
        if done.returncode:
            said = self.log_file.read_bytes()[before:].decode(errors="replace")
            raise NotRunning(
                f"PostgreSQL did not start: {_reason(said)}", hint=f"tail {self.log_file}"
            )

    def _initdb(self, draft: Path, user: str, password: str) -> subprocess.CompletedProcess[str]:
        password_file = self.data.with_name(f"{self.data.name}.password")
        names = [f"--pgdata={draft}", f"--username={user}", f"--pwfile={password_file}"]
        # The builtin provider is C.UTF-8 on every system; the C library's may be missing or change.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
        others = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"]
        try:
            replace_private(password_file, password)
            self.account.give(password_file)
            return self.account.run([self.programs / "initdb", *names, *locale, *others, *settings])
        finally:
            password_file.unlink(missing_ok=True)


def draft_of(data: Path) -> Path:
    """Where a data folder is made before it gets its name; what lies there may be half done."""
    return data.with_name(f"{data.name}.new")


def postmaster(data: Path) -> psutil.Process | None:
    """The live server of this data folder; neither a zombie nor a later owner of its pid is it."""
    try:
        process = psutil.Process(int(_pid_file(data).read_text(encoding="utf-8").split()[0]))
        command = process.cmdline()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    is_ours = bool(command) and Path(command[0]).name == "postgres" and str(data) in command
    return process if is_ours and is_alive(process) else None


def shut_down(process: psutil.Process, timeout_seconds: float) -> None:
    """Stop a server in an orderly way: sessions are cut, what they committed is kept.

    Raises:
        TimedOut: it is still there.
    """
    process.send_signal(signal.SIGINT)
    wait_until(
        lambda: not is_alive(process),
        timeout_seconds,
        "PostgreSQL did not stop",
        hint=f"kill -QUIT {process.pid}",
    )


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        is_backend = process.name() == "postgres" and Path(process.cwd()) == data.resolve()
    except psutil.Error:
        return False
    return is_backend and is_alive(process)


def _pid_file(data: Path) -> Path:
    return data / "postmaster.pid"


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL:" in line or "error:" in line]
    line = (telling or lines or ["it gave no reason"])[-1]
    return line.partition("FATAL:")[2].strip() or line
