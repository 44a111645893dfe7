"""`--on slurm` on a real Slurm of one machine: the same command, the same bytes."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "launch"))
sys.path.insert(0, str(Path(__file__).parents[1] / "reinforce"))
import slurm_cluster
import workers_toys as toys
from reinforce_world import make_store
from slurm_cluster import SETTINGS, SlurmCluster, closed

from understudy.cli import main, on
from understudy.data.store import Store
from understudy.launch.engines.slurm import open_slurm

pytestmark = [
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing()),
    pytest.mark.timeout(180),
    pytest.mark.cluster,
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with SlurmCluster().here():
        root = tmp_path_factory.mktemp("home")
        engine = open_slurm(str(root), SETTINGS)
        yield root
        closed(engine)


@pytest.fixture
def place(home, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_JOBS", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_reinforce_by_two_replicas_writes_what_one_process_writes(place, capfd):
    whole, store = make_store(place / "whole", 16), make_store(place / "s", 16)
    toys.write_config(place / "c.yaml")
    words = ["--config", "c.yaml"]
    assert main(["reinforce", "whole", *words]) == 0
    capfd.readouterr()
    assert main(["reinforce", "s", *words, "--on", "slurm", "--workers", "2"]) == 0
    found = capfd.readouterr()
    assert "submitted to slurm" in found.err
    assert "s: 16 rows, 15 columns" in found.out
    assert Store.open(store.path).content_hash() == whole.refresh().content_hash()


def test_a_command_tells_there_what_it_tells_here(place, capfd):
    assert main(["recipes"]) == 0
    here = capfd.readouterr().out
    assert on.run(on.On(where="slurm"), ["recipes"]) == 0
    assert capfd.readouterr().out == here
    assert on.run(on.On(where="slurm"), ["recipes", "show", "nothing"]) == 2
    assert "there is no recipe 'nothing'" in capfd.readouterr().err
    assert Path.cwd() == place
    assert os.environ["UNDERSTUDY_JOBS"]
