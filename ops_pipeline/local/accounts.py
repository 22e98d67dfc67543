"""Gives PostgreSQL an account that it accepts: it refuses to run as root."""

import fcntl
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ops_pipeline.domain.errors import BadConfiguration

SERVER_USER = "pgserver"
ADMIN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Nothing is handed down: another account could read our keys in its environment, and PG* variables
# would change what the server does.
ENVIRONMENT = {"PATH": ADMIN_PATH, "LC_ALL": "C"}


@dataclass(frozen=True)
class Account:
    """Whom the server's programs run as; without ids, as ourselves."""

    uid: int | None = None
    gid: int | None = None

    def run(
        self, command: Sequence[str | Path], output: IO[bytes] | int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with no terminal, a session of its own and a bare environment."""
        return subprocess.run(
            command,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether this account really gets into the folder, parents and all."""
        return self.run(["/bin/sh", "-c", 'test -x "$1"', "sh", folder]).returncode == 0

    def give(self, path: int | Path) -> None:
        """Make this account the owner of a file or folder, or of an open one."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def server_account(data: Path | None) -> Account:
    """Who runs the server: we do, or under root the data folder's owner or a system user.

    Raises:
        BadConfiguration: we are root, and the system user is missing and cannot be made.
    """
    if os.geteuid() != 0:
        return Account()
    owner = data.stat() if data else None
    if owner and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    with Path("/etc/passwd").open("rb") as users:
        # Two first starts at once would each make a user, and one of the two is lost again.
        fcntl.flock(users, fcntl.LOCK_EX)
        entry = _entry() or _created_entry()
    return Account(entry.pw_uid, entry.pw_gid)


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        return None


def _created_entry() -> pwd.struct_passwd:
    program = shutil.which("useradd", path=ADMIN_PATH)
    command = ["-r", "-M", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", SERVER_USER]
    said = Account().run([program, *command]).stdout.strip() if program else "there is no useradd"
    if entry := _entry():
        return entry
    raise BadConfiguration(
        f"PostgreSQL refuses to run as root, and the user {SERVER_USER} could not be made: {said}",
        hint="run as an ordinary user, or set DATABASE_URL",
    )
