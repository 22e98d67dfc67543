"""Writes small files that only their owner may read, whole or not at all; closes what is open."""

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path


def replace_private(path: Path, text: str) -> None:
    """Put the text in place of the file: mode 0600, on the disk, never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def close_to_others(paths: Iterable[Path]) -> None:
    """Take these files and folders of ours from every other account.

    What lies in a closed folder needs no look of its own. A folder in which another account keeps
    its data stays passable for it, and all else in it is closed.
    """
    us = os.geteuid()
    for path in paths:
        if not path.exists() or path.is_symlink() or path.stat().st_uid != us:
            continue
        is_shared = path.is_dir() and any(one.stat().st_uid != us for one in path.iterdir())
        _restrict(path, 0o711 if is_shared else 0o700)
        if is_shared:
            close_to_others(path.iterdir())


def _restrict(path: Path, allowed: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~allowed:
        path.chmod(mode & allowed)
