"""Reads the environment and the files of the var folder into one frozen Settings."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.alerts import CONSOLE, Channel, Quiet, read_quiet
from ops_pipeline.domain.cost import prices
from ops_pipeline.domain.errors import BadConfiguration, Unsafe
from ops_pipeline.domain.retention import MAX_DAYS, Retention
from ops_pipeline.domain.session import ROUND_THE_CLOCK, Calendar
from ops_pipeline.domain.thresholds import (
    MAX_OVERRIDES_BYTES,
    OVERRIDES_EXAMPLE,
    PROFILES,
    DispatcherConfig,
    SloRules,
    read_overrides,
    slo_rules,
    strict_config,
    visible,
)
from ops_pipeline.private_files import replace_private

PROJECT_DIR = Path(__file__).resolve().parent.parent
KEEPER, SANDBOX, STREAM = "keeper", "sandbox", "stream"
CODE, DAEMON, WEB, ALERTS = "code", "daemon", "web", "alerts"
DEFAULT_BASE_NAME = "ops_pipeline"
# Of the server that plays a market on this machine; they open nothing else.
SANDBOX_KEY, SANDBOX_SECRET = "sandbox-key", "sandbox-secret"
ALPACA_FEEDS = ("iex", "sip")
PAPER_HOST = "paper-api.alpaca.markets"
# The host of the live account is not among them, and must never be.
ALPACA_HOSTS = ("data.alpaca.markets", "data.sandbox.alpaca.markets", PAPER_HOST)
OVERRIDES_TEXT, OVERRIDES_FILE = "OPS_DISPATCHER_CONFIG", "OPS_DISPATCHER_CONFIG_FILE"
SSM_EXAMPLE = "/ops-pipeline/dispatcher_config"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# Each may begin with ~, and is made absolute: children start in another folder.
PATH_NAMES = ("OPS_VAR_DIR", "OPS_UNIVERSE_FILE", OVERRIDES_FILE, "OPS_FINBERT_PATH")
_CHANNEL = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Mode(StrEnum):
    """Where the market comes from; each mode has databases of its own."""

    REPLAY = "replay"
    SANDBOX = "sandbox"
    SIMULATED = "simulated"
    ALPACA_PAPER = "alpaca-paper"

    @property
    def is_live(self) -> bool:
        """Whether this mode's present is the real one."""
        return self is not Mode.REPLAY

    @property
    def processes(self) -> tuple[str, ...]:
        """The background processes of this mode; the first starts the others, in this order."""
        own = (SANDBOX,) if self is Mode.SANDBOX else ()
        followed = (STREAM,) if self.is_followed else ()
        watched = (ALERTS,) if self.is_live else ()
        return (KEEPER, *own, CODE, DAEMON, WEB, *followed, *watched)

    @property
    def is_followed(self) -> bool:
        """Whether there is an account at a broker, which the trade stream follows."""
        return self in (Mode.SANDBOX, Mode.ALPACA_PAPER)

    @property
    def needs_stream(self) -> bool:
        """Whether nothing new is begun while nobody follows the account."""
        return self is Mode.ALPACA_PAPER

    @property
    def calendar(self) -> Calendar:
        """The calendar whose sessions this mode trades; the sandbox never closes."""
        return Calendar(ROUND_THE_CLOCK if self is Mode.SANDBOX else "XNYS")


class BrokerName(StrEnum):
    """Who fills orders: this pipeline's own simulation, or Alpaca's trading host."""

    SIMULATED = "simulated"
    ALPACA = "alpaca"


class SentimentBackend(StrEnum):
    """Who says how a text sounds; what is set is what scores, and nothing stands in for it."""

    LEXICON = "lexicon"
    FINBERT_ONNX = "finbert-onnx"
    FINBERT = "finbert"


@dataclass(frozen=True)
class Roles:
    """The owner of the pipeline's tables, and the restricted role that everything runs under."""

    owner: str
    runtime: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    """How to reach a PostgreSQL server, and the name that its databases begin with.

    The user is the one that was given, or the superuser of the embedded server. Without roles it
    does everything.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    base_name: str = DEFAULT_BASE_NAME
    is_embedded: bool = False
    roles: Roles | None = None

    @property
    def login(self) -> tuple[str, str]:
        """Return user and password at run time."""
        roles = self.roles
        return (roles.runtime, roles.password) if roles else (self.user, self.password)


@dataclass(frozen=True)
class AlpacaAccess:
    """Who asks Alpaca, where, and for which feed; the secrets stay out of every message."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    data_url: str = "https://data.alpaca.markets"
    trading_url: str = "https://paper-api.alpaca.markets"
    feed: str = "iex"

    @property
    def masked_key(self) -> str:
        """Enough of the key to tell two of them apart."""
        return f"{self.key[:2]}...{self.key[-2:]}" if len(self.key) > 8 else "..."


@dataclass(frozen=True)
class AlertChannel(Channel):
    """A channel of alerts, and where it leads: an address of apprise, which is a secret."""

    url: str = field(default="", repr=False)


@dataclass(frozen=True)
class PartitionWindow:
    """First and last session day of the minute partitions; no last day means that they go on."""

    first_day: date
    last_day: date | None = None


@dataclass(frozen=True)
class Settings:
    """All that the environment and the var folder decide; nothing else reads either."""

    mode: Mode
    var_dir: Path
    server: Server | None
    reader_password: str = field(default="", repr=False)
    web_port: int = 3000
    seed: int = 7
    window: PartitionWindow | None = None
    # Only what shows minutes needs the window: trading is halted and ended without it.
    window_fault: BadConfiguration | None = None
    alpaca: AlpacaAccess | None = None
    sandbox_port: int = 8600
    contact: str = ""
    universe_file: Path | None = None
    allows_private_feeds: bool = False
    # Slower by seconds; what the tick benchmark compares with, and dbt's own words when it fails.
    dbt_as_command: bool = False
    broker: BrokerName = BrokerName.SIMULATED
    paper_consent: str = field(default="", repr=False)
    # Both unread: what is wrong in them stops the dispatcher, and nothing else.
    dispatcher_overrides: str = field(default="", repr=False)
    dispatcher_overrides_file: Path | None = None
    # Unread, too: what is wrong in them stops no minute.
    slo_overrides: str = field(default="", repr=False)
    price_overrides: str = field(default="", repr=False)
    # The name of the SSM parameter that the live modes take settings from as well; empty: none.
    ssm_parameter: str = ""
    aws_region: str = ""
    alert_urls: str = field(default="", repr=False)
    alert_quiet: str = ""
    # Asked at each tick of the alerts, so that somebody else notices when none comes.
    dead_man_url: str = field(default="", repr=False)
    retention: Retention = field(default_factory=Retention)
    sentiment: SentimentBackend = SentimentBackend.LEXICON
    # A folder in the hub's format, instead of the model that `model pull` takes.
    finbert_path: Path | None = None

    @property
    def models_dir(self) -> Path:
        """Where models are kept; all modes share them."""
        return self.var_dir / "models"

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox answers."""
        return f"http://127.0.0.1:{self.sandbox_port}"

    @property
    def mode_dir(self) -> Path:
        """What this mode keeps on disk: its market, Dagster's files, logs."""
        return self.var_dir / self.mode.value

    @property
    def own_paths(self) -> list[Path]:
        """Return what this installation keeps in its var folder, which others may use as well."""
        names = [*(mode.value for mode in Mode), "models", "scratch", "postgres"]
        kept = self.var_dir.glob("runtime-*.json")
        files = [reader_file(self.var_dir), self.token_file, *kept]
        return [*(self.var_dir / name for name in names), *files]

    @property
    def connection_file(self) -> Path:
        """Port and passwords of the embedded server (0600)."""
        return connection_file(self.var_dir)

    @property
    def token_file(self) -> Path:
        """Return where the token of the UI and of the sandbox's controls is kept (0600)."""
        return self.var_dir / "token"

    @property
    def window_file(self) -> Path:
        """The days of the minute partitions."""
        return self.mode_dir / "partitions.json"

    @property
    def base_name(self) -> str:
        """What the names of this installation's databases begin with."""
        return self.server.base_name if self.server else DEFAULT_BASE_NAME

    @property
    def is_embedded(self) -> bool:
        """Whether the PostgreSQL server is our own, made or not."""
        return self.server is None or self.server.is_embedded

    @property
    def pipeline_database(self) -> str:
        """The database of the pipeline's own tables, and of dbt's."""
        return f"{self.base_name}_{self.mode.value.replace('-', '_')}"

    @property
    def dagster_database(self) -> str:
        """The database of Dagster's runs and events."""
        return f"{self.pipeline_database}_dagster"

    @property
    def dbt_dir(self) -> Path:
        """Where dbt keeps what it parsed and compiled."""
        return self.mode_dir / "dbt"

    def environment(self) -> dict[str, str]:
        """What Dagster, dbt and their child processes read from their environment.

        Raises:
            BadConfiguration: there is no server yet.
        """
        if self.server is None:
            raise BadConfiguration("there is no database yet", "run: ops-pipeline init")
        port = str(self.server.port)
        user, password = self.server.login
        paths = {
            OVERRIDES_FILE: self.dispatcher_overrides_file,
            "OPS_FINBERT_PATH": self.finbert_path,
            "OPS_UNIVERSE_FILE": self.universe_file,
        }
        return {
            "OPS_MODE": self.mode.value,
            "OPS_VAR_DIR": str(self.var_dir),
            "OPS_SEED": str(self.seed),
            "OPS_SANDBOX_PORT": str(self.sandbox_port),
            "OPS_DAGSTER_DIR": str(self.mode_dir / "dagster"),
            "OPS_DAGSTER_DB_HOST": self.server.host,
            "OPS_DAGSTER_DB_PORT": port,
            "OPS_DAGSTER_DB_NAME": self.dagster_database,
            "OPS_DAGSTER_DB_USER": user,
            "OPS_DAGSTER_DB_PASSWORD": password,
            "OPS_DBT_HOST": self.server.host,
            "OPS_DBT_PORT": port,
            "OPS_DBT_NAME": self.pipeline_database,
            "OPS_DBT_USER": user,
            "DBT_ENV_SECRET_OPS_PASSWORD": password,
            "DAGSTER_HOME": str(PROJECT_DIR),
            # Range runs write hundreds of events; one by one they take most of the time.
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
            "DO_NOT_TRACK": "1",
            # They start in another folder; what is not named here reaches them as it stands.
            **{name: str(path) for name, path in paths.items() if path},
        }

    @property
    def reader(self) -> str:
        """The role that may only read."""
        return f"{self.base_name}_reader"


def read_object(path: Path, hint: str = "") -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is no file.

    Raises:
        BadConfiguration: it cannot be read, or holds something else; the message names the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        is_empty = path.stat().st_size == 0
        reason = "is empty" if is_empty else "is damaged: it is not JSON"
    else:
        if isinstance(found, dict):
            return found
        reason = "is damaged: it is not a JSON object"
    raise BadConfiguration(f"{path} {reason}", hint)


def connection_file(var_dir: Path) -> Path:
    """Where the embedded server's port and passwords are kept."""
    return var_dir / "postgres" / "connection.json"


def connection_copy(var_dir: Path) -> Path:
    """Return where the same stands a second time: no trading is halted without it."""
    return connection_file(var_dir).with_name("connection.copy.json")


def read_connection(var_dir: Path) -> dict[str, Any] | None:
    """Return what connection.json holds, or its copy where it is damaged; None without the file.

    Raises:
        BadConfiguration: neither can be used.
    """
    try:
        return _connection(connection_file(var_dir))
    except BadConfiguration:
        with suppress(BadConfiguration):
            if copy := _connection(connection_copy(var_dir)):
                return copy
        raise


def _connection(path: Path) -> dict[str, Any] | None:
    hint = "put it back from a backup; ops-pipeline down works without it"
    kept = read_object(path, hint)
    kinds = {"host": str, "port": int, "user": str, "password": str, "reader_password": str}
    if kept is None:
        return None
    if not all(isinstance(kept.get(name), kind) for name, kind in kinds.items()):
        raise BadConfiguration(f"{path} is damaged: a field is missing", hint)
    return kept


def load(mode: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings of this process; a mode given here wins over OPS_MODE.

    Raises:
        BadConfiguration: a value cannot be used; the message names it.
    """
    chosen = _mode(mode or environ.get("OPS_MODE") or Mode.REPLAY.value)
    var_dir = (_path("OPS_VAR_DIR", environ) or PROJECT_DIR / "var").resolve()
    server, reader_password = _server(environ, var_dir)
    if server:
        server = replace(server, roles=_roles(server, environ, var_dir))
    window, window_fault = _window(var_dir / chosen.value / "partitions.json", environ)
    return Settings(
        mode=chosen,
        var_dir=var_dir,
        server=server,
        reader_password=reader_password,
        seed=_seed(environ.get("OPS_SEED") or "7"),
        web_port=_port("OPS_WEB_PORT", environ.get("OPS_WEB_PORT") or "3000"),
        window=window,
        window_fault=window_fault,
        alpaca=_alpaca(chosen, environ),
        sandbox_port=_sandbox_port(environ),
        contact=_one_line("OPS_CONTACT", environ),
        universe_file=_path("OPS_UNIVERSE_FILE", environ),
        allows_private_feeds=_switch("OPS_ALLOW_PRIVATE_FEEDS", environ),
        dbt_as_command=_switch("OPS_DBT_AS_COMMAND", environ),
        broker=_broker(chosen, environ),
        paper_consent=_printable("OPS_PAPER_CONSENT", environ.get("OPS_PAPER_CONSENT") or ""),
        dispatcher_overrides=environ.get(OVERRIDES_TEXT) or "",
        dispatcher_overrides_file=_path(OVERRIDES_FILE, environ),
        slo_overrides=environ.get("OPS_SLO") or "",
        price_overrides=environ.get("OPS_PRICES") or "",
        ssm_parameter=_ssm_parameter(chosen, environ),
        aws_region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "",
        alert_urls=environ.get("OPS_ALERT_URLS") or "",
        alert_quiet=environ.get("OPS_ALERT_QUIET") or "",
        dead_man_url=(environ.get("OPS_DEAD_MAN_URL") or "").strip(),
        retention=_retention(environ),
        sentiment=_sentiment(chosen, environ),
        finbert_path=_path("OPS_FINBERT_PATH", environ),
    )


def dispatcher_config(mode: Mode, overrides: Mapping[str, Any] | None = None) -> DispatcherConfig:
    """Defaults, then the mode's profile, then overrides, merged key by key.

    Raises:
        BadConfiguration: a key or a value is refused; the message names it.
    """
    try:
        return strict_config({**PROFILES.get(mode.value, {}), **(overrides or {})})
    except ValueError as error:
        raise BadConfiguration(
            str(error),
            "correct it where it was set: OPS_DISPATCHER_CONFIG, its file, or with"
            " ops-pipeline config set; docs/thresholds.md has every key",
        ) from None


def dispatcher_overrides(settings: Settings) -> dict[str, Any]:
    """What file and environment override, the environment above the file; both are read now.

    Raises:
        BadConfiguration: one of them is no document, or cannot be read; the message says why.
    """
    return {
        **_document(OVERRIDES_FILE, _text_of_file(settings)),
        **_document(OVERRIDES_TEXT, settings.dispatcher_overrides),
    }


def _document(source: str, text: str) -> dict[str, Any]:
    try:
        return read_overrides(text)
    except ValueError as error:
        raise BadConfiguration(f"{source} {error}", f"it reads like {OVERRIDES_EXAMPLE}") from None


def slo_rules_of(settings: Settings) -> SloRules:
    """The limits of the minute loop with the operator's overrides, which are read now.

    Raises:
        BadConfiguration: there are overrides that cannot be used; the message says why.
    """
    try:
        return slo_rules(read_overrides(settings.slo_overrides))
    except ValueError as error:
        hint = "docs/thresholds.md has every key"
        raise BadConfiguration(f"OPS_SLO: {error}", hint) from None


def prices_of(settings: Settings) -> dict[str, float]:
    """What AWS asks for each thing in USD, with the operator's own prices in place of some.

    Raises:
        BadConfiguration: there are prices that cannot be used; the message says why.
    """
    try:
        return prices(read_overrides(settings.price_overrides))
    except ValueError as error:
        raise BadConfiguration(
            f"OPS_PRICES: {error}", 'it reads like {"database": 0.032}'
        ) from None


def alert_channels_of(settings: Settings) -> list[AlertChannel]:
    """The channels of OPS_ALERT_URLS, in its order; the console is none of them.

    Raises:
        BadConfiguration: one of them reads otherwise; the message holds no address.
    """
    found: list[AlertChannel] = []
    for number, word in enumerate(settings.alert_urls.split(), 1):
        name, _, url = word.partition("=")
        name, _, level = name.partition("@")
        known = [one.value for one in Level if not one.is_normal]
        is_new = name not in (CONSOLE, *(one.name for one in found))
        is_named = bool(_CHANNEL.fullmatch(name)) and is_new and level in ("", *known)
        if not is_named or "://" not in url:
            raise BadConfiguration(
                f"OPS_ALERT_URLS: channel {number} does not read NAME=URL or NAME@LEVEL=URL, with a"
                f" name of its own and a level of {', '.join(known)}",
                "docs/alerts.md has examples",
            )
        found.append(AlertChannel(name, Level(level or Level.LOW), url))
    return found


def alert_quiet_of(settings: Settings) -> Quiet | None:
    """The hours of OPS_ALERT_QUIET, in New York; None where there are none.

    Raises:
        BadConfiguration: it reads otherwise.
    """
    if not settings.alert_quiet.strip():
        return None
    try:
        return read_quiet(settings.alert_quiet)
    except ValueError:
        raise BadConfiguration(
            f"OPS_ALERT_QUIET must read like 22:00-07:00, not {visible(settings.alert_quiet)}"
        ) from None


def require_consent(settings: Settings, account_number: str) -> None:
    """Return only where orders may be sent to this account.

    Raises:
        Unsafe: they may not; the message says what is missing.
    """
    access = settings.alpaca
    if settings.broker is not BrokerName.ALPACA or access is None:
        raise Unsafe(
            f"mode {settings.mode.value} has no broker to send orders to",
            "use --mode alpaca-paper with ALPACA_API_KEY and ALPACA_API_SECRET, or --mode sandbox",
        )
    if settings.mode is Mode.SANDBOX:
        if not _is_trusted(access.trading_url, ()):
            raise Unsafe("orders of sandbox mode stay on this machine")
        return
    if settings.mode is not Mode.ALPACA_PAPER:
        raise Unsafe(f"mode {settings.mode.value} sends no orders", "use --mode alpaca-paper")
    _require_paper(access)
    if not account_number.strip():
        raise Unsafe("the broker told no account number", "run: ops-pipeline doctor")
    if settings.paper_consent != account_number:
        missing = "is another text" if settings.paper_consent else "is not set"
        raise Unsafe(
            f"no consent to trade account {masked(account_number)}: OPS_PAPER_CONSENT {missing}",
            "set OPS_PAPER_CONSENT to exactly the number of your paper account",
        )


def save_window(settings: Settings, window: PartitionWindow) -> None:
    """Keep the days of the minute partitions; the code location reads them when it starts."""
    last = window.last_day.isoformat() if window.last_day else None
    document = {"first_day": window.first_day.isoformat(), "last_day": last}
    replace_private(settings.window_file, json.dumps(document))


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        known = ", ".join(mode.value for mode in Mode)
        raise BadConfiguration(f"unknown mode {text!r}; it is one of: {known}") from None


def _alpaca(mode: Mode, environ: Mapping[str, str]) -> AlpacaAccess | None:
    """Access for a mode that asks Alpaca; real keys never go to the sandbox."""
    if mode is Mode.SANDBOX:
        url = f"http://127.0.0.1:{_sandbox_port(environ)}"
        return AlpacaAccess(SANDBOX_KEY, SANDBOX_SECRET, url, url)
    key, secret = (_one_line(f"ALPACA_API_{part}", environ) for part in ("KEY", "SECRET"))
    if mode is Mode.REPLAY or not (key and secret):
        return None
    feed = environ.get("OPS_ALPACA_FEED") or "iex"
    if feed not in ALPACA_FEEDS:
        raise BadConfiguration(
            f"OPS_ALPACA_FEED must be one of {', '.join(ALPACA_FEEDS)}, not {feed!r}"
        )
    trading_hosts = (PAPER_HOST,) if mode is Mode.ALPACA_PAPER else ALPACA_HOSTS
    urls = {
        field: _alpaca_url(name, environ[name], hosts)
        for field, name, hosts in (
            ("data_url", "ALPACA_DATA_URL", ALPACA_HOSTS),
            ("trading_url", "ALPACA_BASE_URL", trading_hosts),
        )
        if environ.get(name)
    }
    access = AlpacaAccess(key, secret, feed=feed, **urls)
    if mode is Mode.ALPACA_PAPER:
        _require_paper(access)
    return access


def _require_paper(access: AlpacaAccess) -> None:
    """Refuse what could be a live account: its host, or its key."""
    _alpaca_url("ALPACA_BASE_URL", access.trading_url, (PAPER_HOST,))
    hint = "set ALPACA_API_KEY and ALPACA_API_SECRET of the paper account"
    if access.key.upper().startswith("AK"):
        raise Unsafe("ALPACA_API_KEY begins with AK: it is a live account's", hint)
    is_local = _is_trusted(access.trading_url, ())
    if not is_local and not access.key.startswith("PK"):
        raise Unsafe("ALPACA_API_KEY does not begin with PK: it is no paper account's", hint)


def _alpaca_url(name: str, text: str, hosts: tuple[str, ...]) -> str:
    """A URL that keys may be sent to: Alpaca's own but for the live account, or this machine."""
    if not _is_trusted(text, hosts):
        raise Unsafe(
            f"{name} must be one of {', '.join(hosts)}, or of this machine",
            f"unset {name}: the default is right",
        )
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc}"


def _is_trusted(url: str, hosts: tuple[str, ...]) -> bool:
    """Whether it is on one of these hosts, under TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises only when read
    except ValueError:
        return False
    is_local = parts.scheme in ("http", "https") and host in LOCAL_HOSTS
    is_known = parts.scheme == "https" and host in hosts
    return "@" not in parts.netloc and (is_local or is_known)


def _broker(mode: Mode, environ: Mapping[str, str]) -> BrokerName:
    """Who fills this mode's orders; only the sandbox leaves a choice, and a replay has no part."""
    text = environ.get("OPS_BROKER") or ""
    known = [broker.value for broker in BrokerName]
    if text and text not in known:
        raise BadConfiguration(f"OPS_BROKER must be one of {', '.join(known)}, not {visible(text)}")
    if mode is Mode.SANDBOX:
        return BrokerName(text or BrokerName.SIMULATED)
    own = BrokerName.ALPACA if mode is Mode.ALPACA_PAPER else BrokerName.SIMULATED
    if text and text != own and mode.is_live:
        others = "simulated" if own is BrokerName.ALPACA else "alpaca-paper or --mode sandbox"
        raise BadConfiguration(
            f"OPS_BROKER={text} contradicts mode {mode.value}, whose broker is {own.value}",
            f"unset OPS_BROKER, or use --mode {others}",
        )
    return own


def _sentiment(mode: Mode, environ: Mapping[str, str]) -> SentimentBackend:
    """The backend that is named, else the mode's own."""
    text = environ.get("OPS_SENTIMENT") or ""
    known = [backend.value for backend in SentimentBackend]
    if text and text not in known:
        raise BadConfiguration(
            f"OPS_SENTIMENT must be one of {', '.join(known)}, not {visible(text)}"
        )
    is_real = mode in (Mode.SIMULATED, Mode.ALPACA_PAPER)
    own = SentimentBackend.FINBERT_ONNX if is_real else SentimentBackend.LEXICON
    return SentimentBackend(text or own)


def masked(account_number: str) -> str:
    """Enough of the number to tell two accounts apart."""
    return f"...{visible(account_number[-4:], 8)}" if len(account_number) > 8 else "..."


def _sandbox_port(environ: Mapping[str, str]) -> int:
    return _port("OPS_SANDBOX_PORT", environ.get("OPS_SANDBOX_PORT") or "8600")


def _one_line(name: str, environ: Mapping[str, str]) -> str:
    return _printable(name, (environ.get(name) or "").strip())


def _printable(name: str, text: str) -> str:
    if not text.isprintable():
        raise BadConfiguration(f"{name} must be one line of printable text")
    return text


def _path(name: str, environ: Mapping[str, str]) -> Path | None:
    """Return an absolute path; the file system is not asked, since a bad file stops its reader."""
    try:
        text = environ.get(name)
        return Path(text).expanduser().absolute() if text else None
    except RuntimeError:
        raise BadConfiguration(f"{name} begins with ~ and a user who is not known here") from None


def _ssm_parameter(mode: Mode, environ: Mapping[str, str]) -> str:
    """The parameter's name, in the modes that ask others at all."""
    text = _one_line("OPS_SSM_PARAMETER", environ)
    if text and not re.fullmatch(r"/?[\w./-]{1,1010}", text, re.ASCII):
        raise BadConfiguration(
            f"OPS_SSM_PARAMETER must be a name like {SSM_EXAMPLE}, not {visible(text)!r}"
        )
    return text if mode.is_live else ""


def _text_of_file(settings: Settings) -> str:
    """What the file of overrides holds."""
    path = settings.dispatcher_overrides_file
    if path is None:
        return ""
    try:
        if not path.is_file():
            raise BadConfiguration(f"{OVERRIDES_FILE}: there is no file {visible(str(path), 120)}")
        with path.open("rb") as file:
            content = file.read(MAX_OVERRIDES_BYTES + 1)
    except OSError as error:
        raise BadConfiguration(f"{OVERRIDES_FILE} cannot be read: {error.strerror}") from None
    try:
        # What is too long may be cut within a letter, and is refused for its length.
        whole = len(content) <= MAX_OVERRIDES_BYTES
        return content.decode("utf-8", "strict" if whole else "replace")
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"{OVERRIDES_FILE} is no UTF-8 text: byte {error.start}") from None


def _switch(name: str, environ: Mapping[str, str]) -> bool:
    text = (environ.get(name) or "false").lower()
    if text not in ("true", "false"):
        raise BadConfiguration(f"{name} must be true or false, not {text!r}")
    return text == "true"


def _port(name: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise BadConfiguration(f"{name} must be a port between 1 and 65535, not {text!r}")
    return int(text)


def _retention(environ: Mapping[str, str]) -> Retention:
    variables = {
        "ticks_days": "OPS_KEEP_TICKS_DAYS",
        "logs_days": "OPS_KEEP_LOGS_DAYS",
        "runs_days": "OPS_KEEP_RUNS_DAYS",
        "signals_days": "OPS_KEEP_SIGNALS_DAYS",
        "alerts_days": "OPS_KEEP_ALERTS_DAYS",
    }
    given = {field: environ.get(name) for field, name in variables.items()}
    return Retention(**{f: _days(variables[f], text) for f, text in given.items() if text})


def _days(name: str, text: str) -> int:
    # What is longer than six digits is out of range before it is read.
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and 0 < int(text) <= MAX_DAYS):
        raise BadConfiguration(
            f"{name} must be a whole number of days from 1 to {MAX_DAYS:,}, not {visible(text)!r}"
        )
    return int(text)


def reader_file(var_dir: Path) -> Path:
    """Where the reading role's password is kept, on a server that is not ours (0600)."""
    return var_dir / "reader.json"


def runtime_file(var_dir: Path, server: Server) -> Path:
    """Return where the run-time role's password on this server is kept once the role exists."""
    if server.is_embedded:
        return connection_file(var_dir).with_name("runtime.json")
    where = quote(f"{server.host}:{server.port}:{server.base_name}", safe=":")
    return var_dir / f"runtime-{where}.json"


def kept_password(path: Path) -> str:
    """Return the password in a role's file; empty where there is none."""
    hint = "put it back from a copy, or remove it and run: ops-pipeline init"
    return str((read_object(path, hint) or {}).get("password", ""))


def roles_of(server: Server, password: str) -> Roles:
    """Return the roles of an installation, with the password of the run-time role."""
    return Roles(f"{server.base_name}_owner", f"{server.base_name}_runtime", password)


def _roles(server: Server, environ: Mapping[str, str], var_dir: Path) -> Roles | None:
    kept = runtime_file(var_dir, server)
    given = environ.get("OPS_RUNTIME_PASSWORD") or kept_password(kept)
    return roles_of(server, given) if given else None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise BadConfiguration(f"OPS_SEED must be a whole number, not {text!r}")
    return int(text)


def _server(environ: Mapping[str, str], var_dir: Path) -> tuple[Server | None, str]:
    if server := _named_server(environ):
        texts = (server.host, server.user, server.password, server.base_name)
        if any("\0" in text or not _is_utf8(text) for text in texts):
            raise BadConfiguration(
                "DATABASE_URL, or one of DB_HOST, DB_NAME, DB_USER and DB_PASSWORD, is no UTF-8"
                " text, or holds a zero byte"
            )
        return server, kept_password(reader_file(var_dir))
    try:
        kept = read_connection(var_dir)
    except BadConfiguration:
        # Said by whoever needs the server; what ends processes does without.
        kept = None
    if kept is None:
        return None, ""
    server = Server("127.0.0.1", kept["port"], kept["user"], kept["password"], is_embedded=True)
    return server, kept["reader_password"]


def _named_server(environ: Mapping[str, str]) -> Server | None:
    """Return the server that DATABASE_URL or DB_HOST names."""
    password = environ.get("DB_PASSWORD") or ""
    if url := environ.get("DATABASE_URL"):
        return _server_of_url(url, password)
    if host := environ.get("DB_HOST"):
        return Server(
            host=host,
            port=_port("DB_PORT", environ.get("DB_PORT") or "5432"),
            user=environ.get("DB_USER") or "postgres",
            password=password,
            base_name=environ.get("DB_NAME") or DEFAULT_BASE_NAME,
        )
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _server_of_url(url: str, other_password: str) -> Server:
    """Return the server of a URL, read from its parts; no message repeats what stands in it."""
    scheme, _, rest = url.strip().partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, password = login.partition(":")
    for part, text in (("user", user), ("password", password)):
        if set(text) & set("/?#[]"):
            raise BadConfiguration(
                f"DATABASE_URL: the {part} holds one of / ? # [ ] as it is",
                "percent-encode it, / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D; or leave the"
                " password out, and set DB_PASSWORD",
            )
    if "?" in place:
        # Three clients connect, each from the parts: what is said here would be heard by none.
        raise BadConfiguration(
            "DATABASE_URL has options after a question mark, which nobody would keep",
            "set them in libpq's variables, as PGSSLMODE and PGSSLROOTCERT",
        )
    found = re.fullmatch(r"(\[[\da-fA-F:.]+\]|[^\s:/?#\[\],]+)(?::([^/]*))?(?:/([^/#]*))?", place)
    if not scheme.startswith("postgres") or (at and not user) or not found:
        raise BadConfiguration(
            f"DATABASE_URL: {_wrong_part(scheme, user, at)} cannot be read; it must read"
            " postgresql://user:password@host:port/name",
            "percent-encode what is special in a part, or set DB_HOST, DB_PORT, DB_NAME, DB_USER"
            " and DB_PASSWORD",
        )
    host, port, name = found.groups()
    if port and not (port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise BadConfiguration("DATABASE_URL: the port is no number between 1 and 65535")
    return Server(
        host.strip("[]"),
        int(port or "5432"),
        unquote(user) or "postgres",
        unquote(password) if colon else other_password,
        unquote(name or "") or DEFAULT_BASE_NAME,
    )


def _wrong_part(scheme: str, user: str, at: str) -> str:
    if not scheme.startswith("postgres"):
        return "what stands before ://"
    return "the user" if at and not user else "what follows the user and the password"


def _window(
    path: Path, environ: Mapping[str, str]
) -> tuple[PartitionWindow | None, BadConfiguration | None]:
    """Return the window of the minute partitions, or what is wrong with the file."""
    first, last = environ.get("OPS_PARTITIONS_START"), environ.get("OPS_PARTITIONS_END")
    if first:
        try:
            return _days_of(first, last), None
        except ValueError as error:
            raise BadConfiguration(f"the days of the partitions must be dates: {error}") from None
    hint = "remove it; the next up or replay writes it again"
    try:
        kept = read_object(path, hint)
        return _days_of(kept["first_day"], kept["last_day"]) if kept is not None else None, None
    except BadConfiguration as fault:
        return None, fault
    except (KeyError, TypeError, ValueError):
        return None, BadConfiguration(f"{path} is damaged: it holds no days", hint)


def _days_of(first: str, last: str | None) -> PartitionWindow:
    return PartitionWindow(date.fromisoformat(first), date.fromisoformat(last) if last else None)
