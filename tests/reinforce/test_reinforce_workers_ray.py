"""Ray: pools of actors write what one run writes, also when an actor is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import workers_toys as toys
from reinforce_world import rows

from understudy.core.lazy import installed
from understudy.data.store import Store
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.generate import reinforce

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(
        not installed("ray"), reason="RAY IS NOT INSTALLED, --on ray IS NOT TESTED: pip install ray"
    ),
    pytest.mark.timeout(300),
    pytest.mark.cluster,
]


def run_on_ray(folder: Path) -> dict:
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE),
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ray_run.py"), str(folder)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors[-5000:]
    return json.loads(output.splitlines()[-1])


def test_ray_writes_what_one_run_writes(tmp_path):
    data = {name: values + values[:1] for name, values in rows(16).items()}
    data["id"][16], data["image"][16] = "broken", b"no image"
    store = Store.create(tmp_path / "fresh", [data])
    found = run_on_ray(tmp_path)
    plain = ReinforceConfig.from_dict(toys.plain_config())
    teachers = tuple(replace(t, outputs=("image",)) for t in plain.teachers[:2])
    config = replace(plain, captioners=(), teachers=teachers, rows="id != 'broken'")
    reinforce(store, config)
    expected = store.content_hash()
    together, apart = found["together"], found["apart"]
    assert together["hash"] == apart["hash"] == expected
    assert together["problems"] == apart["problems"] == []
    assert together["units_left"] == apart["units_left"] == 0
    # one commit, or one a teacher; each row once a pool, whatever was killed
    assert (together["versions"], apart["versions"]) == (2, 3)
    assert (together["computed"], apart["computed"]) == (16, 32)
    assert "teacher a" in together["seconds"]
    assert "teacher b" in together["seconds"]
    assert len(found["killed"]) == 1
    assert found["workers"] >= 2
    assert found["error"].startswith("row 16 (id 'broken')")
    assert found["still_there"]
