"""Under root the server gets an account of its own, and programs that it can really reach."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.local import accounts, programs
from ops_pipeline.local.accounts import Account, server_account
from ops_pipeline.local.programs import copied_tree, programs_for, shipped_tree
from ops_pipeline.private_files import close_to_others

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the account")


@pytest.fixture
def system_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    monkeypatch.setattr(programs, "SYSTEM_DIR", folder)
    yield folder
    shutil.rmtree(folder)


def test_an_ordinary_user_runs_the_server_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts.os, "geteuid", lambda: 1000)
    assert server_account(None) == Account()


@as_root
def test_root_hands_the_server_to_the_owner_of_its_data(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 4322)
    assert server_account(tmp_path) == Account(4321, 4322)


@as_root
def test_root_without_useradd_gets_a_line_to_act_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SERVER_USER", "ops-pipeline-nobody")
    monkeypatch.setattr(accounts.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BadConfiguration, match=r"refuses to run as root.*no useradd"):
        server_account(None)


@as_root
def test_a_closed_parent_folder_keeps_the_account_out(tmp_path: Path) -> None:
    closed, inner = tmp_path / "closed", tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    assert Account().can_enter(inner)
    assert not server_account(None).can_enter(inner)
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
def test_programs_out_of_reach_are_copied_once_and_run(
    tmp_path: Path, system_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = shutil.copytree(shipped_tree(), tmp_path / "hidden", symlinks=True)
    hidden.chmod(0o700)
    (hidden / "bin" / "postgres").chmod(0o700)
    monkeypatch.setattr(programs, "shipped_tree", lambda: hidden)
    account = server_account(None)
    folder = programs_for(account)
    assert folder.parent.parent == system_dir
    assert account.run([folder / "postgres", "--version"]).stdout.startswith(
        "postgres (PostgreSQL)"
    )
    copied_at = folder.stat().st_mtime_ns
    assert programs_for(account) == folder
    assert folder.stat().st_mtime_ns == copied_at
    assert list(system_dir.iterdir()) == [folder.parent]


@as_root
def test_programs_within_reach_are_used_where_they_are() -> None:
    if not programs._runs(shipped_tree(), server_account(None)):
        pytest.skip("this installation lies in a closed folder")
    assert programs_for(server_account(None)) == shipped_tree() / "bin"


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copied_tree(tmp_path / "absent", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_a_line_to_act_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BadConfiguration, match="is not installed") as caught:
        shipped_tree()
    assert "pip install" in caught.value.hint


@as_root
def test_first_starts_side_by_side_agree_on_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SERVER_USER", "ops-pipeline-test")
    try:
        with ProcessPoolExecutor(4, get_context("fork")) as pool:
            found = set(pool.map(server_account, [None] * 4))
        assert found == {server_account(None)}
    finally:
        Account().run(["/usr/sbin/userdel", "ops-pipeline-test"])


def test_what_others_could_read_is_closed_and_what_is_closed_stays(tmp_path: Path) -> None:
    folder, file = tmp_path / "replay", tmp_path / "runtime.json"
    (folder / "logs").mkdir(parents=True, mode=0o755)
    file.write_text("{}")
    for path, mode in ((folder, 0o755), (file, 0o644)):
        path.chmod(mode)
    (tmp_path / "link").symlink_to("/etc/passwd")
    close_to_others([folder, file, tmp_path / "link", tmp_path / "none"])
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]
    assert stat.S_IMODE(Path("/etc/passwd").stat().st_mode) == 0o644


@as_root
def test_the_servers_account_still_reaches_its_data_in_a_closed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    data, file = folder / "data", folder / "connection.json"
    data.mkdir(parents=True, mode=0o700)
    file.write_text("{}")
    for path, mode in ((tmp_path.parent, 0o755), (tmp_path, 0o755), (folder, 0o755), (file, 0o644)):
        path.chmod(mode)
    account = server_account(None)
    account.give(data)
    close_to_others([folder])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert account.run(["/bin/sh", "-c", 'ls "$1"', "sh", folder]).returncode != 0
