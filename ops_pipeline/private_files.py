"""Write small files that processes share."""

import os
import tempfile
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
