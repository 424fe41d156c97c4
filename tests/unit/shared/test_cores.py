"""The cores that a process may use: affinity, and the quota of its control groups, versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tussis.shared import cores
from tussis.shared.cores import available_cores, cpu_quota
from tussis.shared.settings import load_settings


class Host:
    """A tree of control groups as the kernel shows it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cgroup = root / "cgroup"
        self.mounts = root / "mountinfo"
        self.cgroup.touch()
        self.mounts.write_text("22 1 0:20 / /proc rw - proc proc rw\n")

    def group(self, line: str) -> None:
        with self.cgroup.open("a") as file:
            file.write(f"{line}\n")

    def mount(self, name: str, kind: str, options: str, root: str = "/") -> Path:
        point = self.root / name
        point.mkdir()
        shown = str(point).replace(" ", "\\040")
        with self.mounts.open("a") as file:
            file.write(f"31 22 0:28 {root} {shown} rw,nosuid - {kind} {kind} {options}\n")
        return point

    def quota(self) -> float | None:
        return cpu_quota(self.cgroup, self.mounts)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("limit", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000\n", 0.5), ("rubbish", None)]
)
def test_a_container_of_version_2(host: Host, limit: str, quota: float | None) -> None:
    host.group("0::/")
    write(host.mount("a cgroup", "cgroup2", "rw"), cpu__max=limit)
    assert host.quota() == quota


def test_the_least_quota_of_all_levels_of_version_2_counts(host: Host) -> None:
    host.group("0::/pods/pod/container")
    point = host.mount("groups", "cgroup2", "rw,nsdelegate")
    write(point / "pods" / "pod" / "container", cpu__max="400000 100000")
    write(point / "pods" / "pod", cpu__max="300000 100000")
    write(point / "pods", cpu__max="max 100000")
    assert host.quota() == 3.0


@pytest.mark.parametrize(
    ("root", "folder"), [("/", "docker/abc"), ("/docker/abc", "."), ("/elsewhere", ".")], ids=["host", "own", "odd"]
)
def test_version_1_seen_from_the_host_and_from_a_container(host: Host, root: str, folder: str) -> None:
    host.group("5:memory:/docker/abc")
    host.group("3:cpu,cpuacct:/docker/abc")
    host.mount("memory", "cgroup", "rw,memory", root)
    point = host.mount("cpu", "cgroup", "rw,cpu,cpuacct", root)
    write(point, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    write(point / folder, cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    assert host.quota() == 2.5


def test_version_1_beside_an_empty_version_2(host: Host) -> None:
    host.group("3:cpu,cpuacct:/")
    host.group("0::/")
    write(host.mount("cpu", "cgroup", "rw,cpu,cpuacct"), cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    host.mount("unified", "cgroup2", "rw")
    assert host.quota() is None


def test_no_control_groups_are_no_limit(tmp_path: Path, host: Host) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path / "none") is None
    host.group("nonsense")
    assert host.quota() is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"), [(8, None, 8), (8, 1.5, 2), (8, 0.1, 1), (2, 6.0, 2), (8, 3.0, 3)]
)
def test_the_default_concurrency_is_the_affinity_or_the_quota_rounded_up(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.delenv("TUSSIS_CONCURRENCY", raising=False)
    assert available_cores() == expected
    assert load_settings().concurrency == expected
