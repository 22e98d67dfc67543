"""One environment for every process: `.env` below the shell's, and no other programs' variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops_pipeline import environment
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.environment import RESOLVED, adopt, child_environment, controlled, read_dotenv
from ops_pipeline.settings import PROJECT_DIR, load

PROXY = "http://127.0.0.1:9"
LOOPBACK = "localhost,127.0.0.1,::1"
URL = "postgresql://user@db.example/ops"
# Prints what a process finds after it has entered, as the command line and the code location do.
ENTERED = """
import os, sys
from pathlib import Path
from ops_pipeline import environment
environment.DOTENV_FILE = Path(sys.argv[1])
injected = dict(word.split("=", 1) for word in sys.argv[2:])
os.environ.update(injected)
environment.enter()
for name in ("OPS_SEED", "OPS_CONTACT", "OPS_VAR_DIR", "PGSSLMODE", "DBT_TARGET"):
    print(name, os.environ.get(name))
"""


def entered(file: Path, *injected: str, **variables: str) -> dict[str, str]:
    """The environment of a process that was started with these, and entered."""
    kept = {name: value for name, value in os.environ.items() if name != RESOLVED}
    done = subprocess.run(
        [sys.executable, "-c", ENTERED, str(file), *injected],
        env={**kept, **variables},
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_the_environment_wins_over_the_file_and_the_file_over_nothing(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OPS_SEED=91\nOPS_CONTACT=a@b.c\nOPS_VAR_DIR=./mine\n")
    found = entered(file, OPS_SEED="55", PGSSLMODE="require", DBT_TARGET="prod")
    assert (found["OPS_SEED"], found["OPS_CONTACT"]) == ("55", "a@b.c")
    assert found["OPS_VAR_DIR"] == str(PROJECT_DIR / "mine")
    assert (found["PGSSLMODE"], found["DBT_TARGET"]) == ("None", "None")


def test_what_dagster_puts_above_the_environment_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OPS_SEED=91\nOPS_CONTACT=a@b.c\n")
    injected = ("OPS_SEED=91", "OPS_CONTACT=a@b.c")
    assert entered(file, *injected, OPS_SEED="55")["OPS_SEED"] == "55"
    child = entered(file, *injected, OPS_SEED="55", OPS_DOTENV="read")
    assert (child["OPS_SEED"], child["OPS_CONTACT"]) == ("55", "None")


@pytest.mark.parametrize("content", [b"OPS_SEED=91\n", b"\xff\xfe", b"no assignment"])
def test_a_child_does_not_depend_on_an_edited_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    assert entered(file, OPS_DOTENV="read")["OPS_SEED"] == "None"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"X=1", "1"),
        (b"\xef\xbb\xbfX=1\r\nY=2\r\n", "1"),
        (b"# a word\n\nexport X=1 # why\n", "1"),
        (b"X='{\"a\": 0.9}'\n", '{"a": 0.9}'),
        (b'X={"a": 0.9}\n', '{"a": 0.9}'),
        (b'Z=q\nX="${Z}w"\n', "qw"),
        (b"X=${NOBODY_SETS_THIS:-d}", "d"),
        (b'X="a\nb"\n', "a\nb"),
        (b"X=", ""),
    ],
)
def test_what_a_file_may_hold(tmp_path: Path, content: bytes, value: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    assert read_dotenv(file)["X"] == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x7fELF\x02\x01\xff\x00\x80", "no UTF-8 text: byte 6"),
        ("X=1".encode("utf-16"), "no UTF-8 text: byte 0"),
        (b"X=1\nrm -rf /\n", "line 2 does not read NAME=value"),
        (b"X=1\n\nexport X\n", "line 3 does not read NAME=value"),
        (b"X=1\nY='open\n", "line 2 does not read NAME=value"),
        (b"X=a\0b\n", "line 1 does not read NAME=value"),
        (b"=1\n", "line 1 does not read NAME=value"),
        (b"X=1\n" * 2_500_000, "more than 100,000 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(BadConfiguration, match=said) as refused:
        read_dotenv(file)
    assert len(str(refused.value).splitlines()) == 1


def test_a_folder_a_pipe_and_a_link_to_nothing(tmp_path: Path) -> None:
    folder, pipe, link = (tmp_path / name for name in "abc")
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "absent")
    for path in (folder, pipe):
        with pytest.raises(BadConfiguration, match="is no file"):
            read_dotenv(path)
    assert read_dotenv(link) == read_dotenv(tmp_path / "absent") == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.touch(mode=0o000)
    with pytest.raises(BadConfiguration, match="cannot be read: Permission denied"):
        read_dotenv(file)


@pytest.mark.parametrize(
    "name",
    [
        "PGSSLMODE", "PGHOSTADDR", "PGSERVICE", "PGTARGETSESSIONATTRS", "PGDATESTYLE",
        "PGCLIENTENCODING", "PGOPTIONS", "PGTZ", "PGPASSFILE", "DBT_TARGET", "DBT_PROFILE",
        "DBT_EMPTY", "DBT_ENGINE_EMPTY", "DBT_WARN_ERROR", "PYTHONINSPECT", "PYTHONOPTIMIZE",
        "PYTHONWARNINGS", "PYTHONSAFEPATH", "PSYCOPG_IMPL", "grpc_proxy",
    ],
)  # fmt: skip
def test_other_programs_variables_are_taken_out(name: str) -> None:
    assert controlled({name: "x", "HOME": "/h"}) == {"HOME": "/h"}


@pytest.mark.parametrize("name", ["PYTHONPATH", "DBT_ENV_SECRET_OPS_PASSWORD", "PGP_KEY", "TZ"])
def test_what_is_ours_or_harmless_stays(name: str) -> None:
    assert controlled({name: "x"}) == {name: "x"}


def test_a_server_that_is_named_keeps_what_encrypts_and_nothing_else() -> None:
    given = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca", "PGHOSTADDR": "10.0.0.1"}
    encrypted = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca"}
    assert controlled({**given, "DATABASE_URL": URL}) == {**encrypted, "DATABASE_URL": URL}
    assert controlled({**given, "DB_HOST": "db"}) == {**encrypted, "DB_HOST": "db"}
    assert controlled(given) == {}


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, LOOPBACK),
        ({"NO_PROXY": "a.example, b.example"}, f"a.example,b.example,{LOOPBACK}"),
        ({"no_proxy": "localhost", "NO_PROXY": "ignored"}, LOOPBACK),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_this_machine_is_never_asked_by_a_proxy(
    name: str, given: dict[str, str], made: str
) -> None:
    found = controlled({name: PROXY, **given})
    assert found == {name: PROXY, "NO_PROXY": made, "no_proxy": made}


def test_children_are_given_all_that_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_HOME", "DAGSTER_PROJECT_ENV_FILE_PATHS", "DBT_TARGET"):
        monkeypatch.setenv(name, "elsewhere")
    settings = load("sandbox", {"DATABASE_URL": URL, "OPS_VAR_DIR": str(tmp_path)})
    found = child_environment(settings)
    assert found["DAGSTER_HOME"] == str(PROJECT_DIR)
    assert (found["OPS_MODE"], found[RESOLVED]) == ("sandbox", "read")
    assert not {"DAGSTER_PROJECT_ENV_FILE_PATHS", "DBT_TARGET"} & found.keys()


def test_a_command_beside_a_running_instance_can_take_what_that_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"OPS_SEED": "1", "OPS_CONTACT": "x", "HOME": "/h"})
    adopt({"OPS_SEED": "2", "DATABASE_URL": URL, "HOME": "/other"})
    assert os.environ == {"OPS_SEED": "2", "DATABASE_URL": URL, "HOME": "/h"}


def test_the_file_is_beside_dagsters_own_and_is_not_committed() -> None:
    assert environment.DOTENV_FILE.with_name("dagster.yaml").is_file()
    assert ".env" in (PROJECT_DIR / ".gitignore").read_text().splitlines()
