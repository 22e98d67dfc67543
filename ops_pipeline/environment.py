"""Build the environment of every process: the shell's above `.env`, without other programs' names.

The first process of a command reads `.env`. Its children find the result in their environment and
read no file, so an edited `.env` cannot split what runs.
"""

import io
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from dotenv import dotenv_values
from dotenv.parser import parse_stream

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import PATH_NAMES, PROJECT_DIR, Settings

DOTENV_FILE = PROJECT_DIR / ".env"
MAX_DOTENV_BYTES = 100_000
# Set in every environment that is built here; where it is set, `.env` is not read again.
RESOLVED = "OPS_DOTENV"
# What this project reads; an instance keeps the values that it was started with.
OWN = re.compile(r"(OPS|DB|ALPACA|AWS)_\w+|DATABASE_URL")
# Read by libpq, dbt, psycopg, gRPC and Python itself, and set for other programs.
FOREIGN = re.compile(r"(PG|PYTHON)[A-Z]+|(DBT|PSYCOPG)_\w+|(no_)?grpc_proxy")
# Where Python finds its modules, how it decodes, and the password that we hand to dbt.
KEPT = frozenset(
    {
        "DBT_ENV_SECRET_OPS_PASSWORD",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHOME",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "PYTHONPYCACHEPREFIX",
        "PYTHONUSERBASE",
        "PYTHONUTF8",
    }
)
# How a connection is encrypted; kept where the operator names a server.
ENCRYPTION = re.compile(r"PGSSL[A-Z]+|PGCHANNELBINDING|PGREQUIREAUTH|PGGSSENCMODE")
PROXY = re.compile(r"(https?|all|ftp)_proxy", re.IGNORECASE)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@cache
def enter() -> None:
    """Give this process the environment that all processes share; later calls do nothing.

    Dagster's own commands put `.env` above the environment. Here the environment wins, as it does
    in every other command.

    Raises:
        BadConfiguration: `.env` cannot be used; the message names the line.
    """
    began, environ = _environment_at_start(), dict(os.environ)
    if RESOLVED in environ and RESOLVED not in began:
        return
    try:
        told = read_dotenv(DOTENV_FILE)
    except BadConfiguration:
        # What runs does not depend on an edit.
        if RESOLVED not in began:
            raise
        told = {}
    for name in [name for name, value in told.items() if environ.get(name) == value]:
        del environ[name]
        if name in began:
            environ[name] = began[name]
    if RESOLVED not in environ:
        environ = {**_anchored(told), **environ}
    _replace({**controlled(environ), RESOLVED: "read"})


def child_environment(settings: Settings) -> dict[str, str]:
    """Return what a child of this process finds: all that its settings say, given by name.

    Raises:
        BadConfiguration: there is no server yet.
    """
    kept = {n: v for n, v in controlled(os.environ).items() if not n.startswith("DAGSTER_")}
    return {**kept, **settings.environment(), RESOLVED: "read"}


def apply(settings: Settings) -> None:
    """Let Dagster and dbt in this process find what a child would.

    Raises:
        BadConfiguration: there is no server yet.
    """
    _replace(child_environment(settings))


def adopt(running: Mapping[str, str]) -> None:
    """Let this process read what a running instance reads, in place of what it found itself."""
    others = {name: value for name, value in os.environ.items() if not OWN.fullmatch(name)}
    _replace({**others, **own(running)})


def own(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that this project reads."""
    return {name: value for name, value in environ.items() if OWN.fullmatch(name)}


def controlled(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without other programs' variables, that never proxies loopback.

    Of libpq's variables those that say how to encrypt are kept for a server that is not ours.
    """
    is_named = bool(environ.get("DATABASE_URL") or environ.get("DB_HOST"))
    kept = {
        name: value
        for name, value in environ.items()
        if name in KEPT or not FOREIGN.fullmatch(name) or (is_named and ENCRYPTION.fullmatch(name))
    }
    if any(PROXY.fullmatch(name) for name in kept):
        given = re.split(r"[,\s]+", kept.get("no_proxy") or kept.get("NO_PROXY") or "")
        named = [word for word in dict.fromkeys([*given, *LOOPBACK]) if word]
        kept["NO_PROXY"] = kept["no_proxy"] = "*" if "*" in named else ",".join(named)
    return kept


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for this address; never one for loopback."""
    from requests.utils import get_environ_proxies, select_proxy

    if urlsplit(url).hostname in LOOPBACK:
        return None
    proxy = select_proxy(url, get_environ_proxies(url))
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def read_dotenv(path: Path) -> dict[str, str]:
    """Return what a `.env` file says, read as python-dotenv does; nothing where there is none.

    Raises:
        BadConfiguration: it is no file, too large, no text, or a line of it sets nothing.
    """
    text = _text_of(path)
    for line in parse_stream(io.StringIO(text)):
        is_empty = line.key is None and not line.error
        if not is_empty and (line.error or line.value is None or "\0" in line.original.string):
            number = line.original.line + _leading_lines(line.original.string)
            raise BadConfiguration(f"{path}, line {number} does not read NAME=value", _HINT)
    return {n: v for n, v in dotenv_values(stream=io.StringIO(text)).items() if v is not None}


_HINT = "docs/configuration.md says what may stand there; OPS_DOTENV=off does without it"


def _leading_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _text_of(path: Path) -> str:
    try:
        if not path.exists():
            return ""
        if not path.is_file():
            raise BadConfiguration(f"{path} is no file", _HINT)
        with path.open("rb") as file:
            content = file.read(MAX_DOTENV_BYTES + 1)
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {error.strerror}", _HINT) from None
    if len(content) > MAX_DOTENV_BYTES:
        raise BadConfiguration(f"{path} has more than {MAX_DOTENV_BYTES:,} bytes", _HINT)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"{path} is no UTF-8 text: byte {error.start}", _HINT) from None


def _anchored(told: Mapping[str, str]) -> dict[str, str]:
    """Return these with relative paths below the project folder, wherever a command is called."""
    return {
        name: str(PROJECT_DIR / Path(value)) if name in PATH_NAMES and value[:1] != "~" else value
        for name, value in told.items()
        if name != RESOLVED and value
    }


def _environment_at_start() -> Mapping[str, str]:
    """Return what this process was started with, whatever was changed since."""
    try:
        return psutil.Process().environ()
    except psutil.Error:
        return dict(os.environ)


def _replace(environ: Mapping[str, str]) -> None:
    """Change what differs, and nothing else: other threads read the environment meanwhile."""
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update({n: v for n, v in environ.items() if os.environ.get(n) != v})
