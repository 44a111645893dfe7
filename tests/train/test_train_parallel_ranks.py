"""Local SGD and the parameter server on real ranks: against DDP, NumPy and themselves resumed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("world", [2, 3])
def test_modes_agree_where_they_should(tmp_path: Path, world: int):
    script = Path(__file__).with_name("parallel_toy.py")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={**os.environ, **known, "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "OMP_NUM_THREADS": "1", "UNDERSTUDY_PROGRESS": "none"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        for process in ranks:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, err[-3000:]
            assert out.endswith("ok\n")
    finally:
        for process in ranks:
            process.kill()
