"""What memory is free, read from made-up files."""

from __future__ import annotations

from pathlib import Path

from understudy.curate.dedup.memory import (
    RESERVED_BYTES,
    available_bytes,
    budget_bytes,
    readable,
)

MIB = 1 << 20


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


def test_the_machine_alone(tmp_path):
    write(tmp_path, {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   2048 kB"})
    assert available_bytes(tmp_path) == 2 * MIB


def test_nothing_known(tmp_path):
    assert available_bytes(tmp_path) is None


def test_the_tightest_group_of_version_2(tmp_path):
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1048576 kB",
            "proc/self/cgroup": "0::/outer/inner",
            "sys/fs/cgroup/outer/memory.max": 100 * MIB,
            "sys/fs/cgroup/outer/memory.current": 70 * MIB,
            "sys/fs/cgroup/outer/memory.stat": f"anon 5\ninactive_file {20 * MIB}",
            "sys/fs/cgroup/outer/inner/memory.max": "max",
            "sys/fs/cgroup/outer/inner/memory.current": 60 * MIB,
        },
    )
    # pages of files are given back on demand
    assert available_bytes(tmp_path) == 50 * MIB


def test_a_group_of_version_1(tmp_path):
    base = "sys/fs/cgroup/memory"
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1048576 kB",
            "proc/self/cgroup": "5:cpu:/a\n4:memory:/a\n0::/",
            f"{base}/memory.limit_in_bytes": 9223372036854771712,
            f"{base}/memory.usage_in_bytes": 5,
            f"{base}/a/memory.limit_in_bytes": 64 * MIB,
            f"{base}/a/memory.usage_in_bytes": 60 * MIB,
        },
    )
    assert available_bytes(tmp_path) == 4 * MIB


def test_a_group_over_its_limit_leaves_nothing(tmp_path):
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1048576 kB",
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": MIB,
            "sys/fs/cgroup/memory.current": 2 * MIB,
        },
    )
    assert available_bytes(tmp_path) == 0


def test_budgets():
    assert budget_bytes(17) == 17
    free, here = budget_bytes(), available_bytes()
    if here is not None:
        assert free is not None
        assert abs(max(0, here - RESERVED_BYTES) - free) < 1 << 30


def test_readable():
    assert readable(1023) == "1,023 B"
    assert readable(1024 * 1.5) == "1.50 KiB"
    assert readable(7_188_132_297_172) == "6.54 TiB"
    assert readable(float(1 << 60)) == "1,024.00 PiB"
