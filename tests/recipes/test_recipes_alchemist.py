"""The alchemist recipe: registration, plan, a run and its page, the claim's parts and checks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from understudy.core.errors import ConfigError, UnderstudyError
from understudy.core.files import read_json
from understudy.evaluate.claims import Context
from understudy.launch.checkpoints import Checkpointer
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.recipes import PAPERS, RECIPES, alchemist_arms, alchemist_engines, alchemist_jobs
from understudy.recipes import alchemist_claim as claim
from understudy.recipes.alchemist_account import progress
from understudy.recipes.alchemist_script import rows_of
from understudy.report.jobs import write_job_page

RECIPE = RECIPES.load("alchemist")
TELLS = """
import os, pathlib, sys, time
from understudy.launch.state_metrics import log
folder = pathlib.Path(os.environ["UNDERSTUDY_CKPT_DIR"])
again = os.environ["UNDERSTUDY_RESUME"] == "1"
assert os.environ["WORLD_SIZE"] == "2"
for step in range(6 if again else 0, 12):
    log(step, loss=1 / (step + 1))
    time.sleep(0.02)
    if step == 8 and not again:
        sys.exit(1)
if os.environ["RANK"] == "0":
    pathlib.Path(os.environ["UNDERSTUDY_OUTPUT_MODEL"]).write_text(sys.argv[1])
"""


@pytest.fixture
def home(tmp_path):
    found = open_local(str(tmp_path / "jobs"), LocalSettings(idle_exit_s=0.5, poll_s=0.1))
    found.set_capacity(2)
    found.close()
    return tmp_path / "jobs"


def test_it_is_registered():
    assert RECIPE.CLAIM.recipe == "alchemist"
    assert len(RECIPE.CLAIM.seeds) == 3
    assert PAPERS["alchemist"][1] == "1811.00143"
    assert RECIPE.__doc__.count("understudy verify alchemist") == 1
    # The script needs no more than the lines that it says.
    text = alchemist_jobs.SCRIPT.read_text()
    assert text.count("# added: ") == 4


def test_the_plan_follows_the_formulas():
    plan = RECIPE.PLAN()
    size = plan.value("gradient of a step")
    assert size == 4 * plan.value("parameters")
    assert plan.value("8 workers: sent by each in a step") == pytest.approx(2 * 7 / 8 * size)
    compute, c = plan.value("computing of a step"), plan.value("a checkpoint")
    step = compute + 2 * 63 / 64 * size / 3.125e9 + 2 * 63 * 20e-6
    assert plan.value("64 workers: a step, T(n)") == pytest.approx(step)
    assert plan.value("64 workers: efficiency, E(n)") == pytest.approx(compute / step)
    between = 30 * 86_400 / 64
    pause = (2 * c * between) ** 0.5
    assert plan.value("64 workers: between checkpoints") == pytest.approx(pause)
    lost = c / pause + pause / (2 * between) + 60 / between
    assert plan.value("64 workers: lost to failures") == pytest.approx(lost)
    assert plan.value("1 worker: times faster") == 1
    assert RECIPE.PLAN(price_per_hour=4.0).value("money") == 2 * plan.value("money")
    with pytest.raises(ConfigError):
        RECIPE.PLAN(scale="laptop")


def wanted(tmp_path, home, **changes):
    """Return the configuration of a run on two workers, at prices that can be counted by hand."""
    (tmp_path / "code").mkdir()
    script = tmp_path / "code" / "train_it.py"
    script.write_text(TELLS)
    usual = {
        "script": script, "args": "'a word'", "outputs": ("model=model.txt",), "home": home,
        "out": tmp_path / "out", "save_s": 0.02, "between_failures_s": 100.0, "timeout_s": 120.0,
        "max_cost": 1e6, "cpu_hour": 3600.0, "storage_gb_month": 1e9,
    }  # fmt: skip
    return RECIPE.Config(**{**usual, **changes})


def test_a_preview_starts_nothing(tmp_path, home):
    preview = RECIPE.preview(wanted(tmp_path, home))
    assert preview.value("workers") == 2
    assert preview.value("between checkpoints") == pytest.approx(2.0)  # sqrt(2 x 0.02 x 100)
    assert preview.value("an attempt of full length") == pytest.approx(2 * 120)
    assert not (home / "jobs").exists()


def test_a_budget_that_is_too_small_is_refused(tmp_path, home):
    script = tmp_path / "train.py"
    script.write_text("")
    config = RECIPE.Config(script=script, home=home, max_cost=1.0, cpu_hour=3600.0, timeout_s=60.0)
    with pytest.raises(ConfigError, match="more than budget.max_cost"):
        RECIPE.preview(config)


def test_a_run_ends_with_an_account_and_a_page(tmp_path, home):
    config = wanted(tmp_path, home)
    folder = RECIPE.run(config)
    job = read_json(folder / "result.json")["job"]
    assert job["state"] == "SUCCEEDED"
    assert job["restarts"] >= 1
    assert "RESTARTING" in job["states"]
    # 0..8, then 6..11: 15 computed, 12 kept.
    assert job["steps"] == {"kept": 12, "computed": 15, "last": 11}
    assert job["useful_fraction"] == 12 / 15
    assert 0 < job["goodput"] < 0.9
    assert job["artefacts"][0]["bytes"] == len("a word")
    assert job["kept_cost_month"] == pytest.approx(len("a word"))  # 1e9 for a GB
    # Two cores at one a second each, for as long as it ran.
    assert job["cost"] == pytest.approx(2 * job["ran_s"], rel=0.35)
    assert job["young"]["overhead"] == pytest.approx(0.02)  # 0.02/2 + 2/200
    text = write_job_page(folder, title="Understudy: alchemist").read_text()
    assert "useful part" in text
    assert job["id"] in text
    again = RECIPE.run(config)  # the same job, at once
    assert read_json(again / "result.json")["job"]["id"] == job["id"]


def test_a_run_that_fails_says_how(tmp_path, home):
    script = tmp_path / "code" / "bad.py"
    script.parent.mkdir()
    script.write_text("import sys; sys.exit('no data here')")
    config = RECIPE.Config(script=script, workers=1, restarts=0, home=home, out=tmp_path / "out")
    with pytest.raises(UnderstudyError, match="is FAILED"):
        RECIPE.run(replace(config))
    job = read_json(tmp_path / "out" / "result.json")["job"]
    assert job["goodput"] is None
    assert "told of no steps" in write_job_page(tmp_path / "out", title="t").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": Path("no/such.py")}, "script: there is no file 'no/such.py'"),
        ({"workers": 0}, "workers: expected at least 1"),
        ({"fewest": 3}, r"fewest: expected 1 to workers \(2\), got 3"),
        ({"save_s": 1.0}, "Young's rule needs both"),
        ({"outputs": ("model.pt",)}, "outputs: expected NAME=PATH, got 'model.pt'"),
    ],
)
def test_what_a_run_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        RECIPE.Config(**{"script": Path(__file__), **changes})


def test_steps_that_were_told_add_up():
    assert progress([(0, 0.0)])["goodput"] is None
    even = progress([(i, float(i)) for i in range(11)])
    assert even["goodput"] == even["useful_fraction"] == 1.0
    # Ten steps of a second, 3 s of restart, three of them again.
    lines = [(i, float(i)) for i in range(6)] + [(i, i + 6.0) for i in range(3, 11)]
    found = progress(lines)
    assert found["steps"] == {"kept": 11, "computed": 14, "last": 10}
    assert found["goodput"] == pytest.approx(10 / 16)
    assert found["useful_fraction"] == pytest.approx(11 / 14)


# -- the claim


def test_the_first_save_is_made_to_learn_what_saving_takes(tmp_path):
    keeper = Checkpointer(tmp_path / "a", between_failures_s=1000.0)
    state = {"seen": {"n": 1}}
    assert keeper.after(1, state)
    assert keeper.save_s > 0
    assert not keeper.after(2, state)
    assert keeper.interval_s == pytest.approx((2 * keeper.save_s * 1000) ** 0.5)
    assert not Checkpointer(tmp_path / "b").due()
    assert not Checkpointer(tmp_path / "c", every_s=100, between_failures_s=10).due()
    assert not Checkpointer(tmp_path / "d", between_failures_s=10, writes=False).due()


def test_every_pass_sees_every_row_once():
    first = np.concatenate([rows_of(step, 3, 32, 100) for step in range(3)])
    second = np.concatenate([rows_of(step, 3, 32, 100) for step in range(3, 6)])
    assert len(set(first)) == len(first) == 96
    assert len(set(second)) == 96
    assert not np.array_equal(first, second)
    assert np.array_equal(rows_of(4, 3, 32, 100), rows_of(4, 3, 32, 100))


def tell(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_summary_counts_what_was_lost(tmp_path):
    """Ten steps of a second, a save of 0.1 s after each second one, a kill in step 6."""
    rows, saves, now = [], [], 100.0
    for step in (0, 1, 2, 3, 4):
        rows.append({"step": step, "begun": now, "ended": now + 1})
        now += 1
        if step % 2:
            saves.append({"step": step + 1, "seconds": 0.1, "interval": 2.0})
            now += 0.1
    killed = now + 0.5
    now = killed + 3
    for step in (4, 5, 6, 7, 8, 9):
        rows.append({"step": step, "begun": now, "ended": now + 1})
        now += 1
        if step % 2 and step < 9:
            saves.append({"step": step + 1, "seconds": 0.1, "interval": 2.0})
            now += 0.1
    tell(tmp_path / "steps.jsonl", rows)
    tell(tmp_path / "saves.jsonl", saves)
    tell(tmp_path / "seen.json", [{"steps": list(range(10)), "digest": "ab" * 32}])
    found = alchemist_arms.summary(tmp_path, [killed, now + 50], 20.0)
    wall = 5 + 0.2 + 0.5 + 3 + 6 + 0.2
    assert found["wall_s"] == pytest.approx(wall)
    assert found["kills"] == 1  # the other one came after the end
    assert found["goodput"] == pytest.approx(10 / wall)
    assert found["young"] == pytest.approx(1 - (0.1 / 2 + 2 / 40))
    assert found["restart_s"] == pytest.approx(3)
    assert found["lost_per_kill_s"] == pytest.approx(1 + 0.5 + 3)
    assert found["useful_fraction"] == pytest.approx(10 / 11)
    assert (found["trained_twice"], found["left_out"], found["in_order"]) == (0, 0, 1)
    tell(tmp_path / "seen.json", [{"steps": [0, 1, 1, 3], "digest": "ab" * 32}])
    found = alchemist_arms.summary(tmp_path, [], 20.0)
    assert (found["trained_twice"], found["left_out"]) == (1, 1)


def test_a_curve_is_read(tmp_path):
    facts = {"samples": [10, 20, 30], "seconds": [1.0, 2.0, 3.0], "accuracy": [0.5, 0.98, 0.96],
             "step_s": 0.5, "communicate_s": 0.01, "bytes": 8, "bandwidth": 1.0,
             "latency_s": 0.0}  # fmt: skip
    found = alchemist_arms.curve_facts(facts, 0.97, 10)
    assert (found["seconds_to_target"], found["samples_to_target"]) == (2.0, 20.0)
    assert found["samples_per_s"] == 10
    assert found["step_samples_per_s"] == 20
    assert alchemist_arms.curve_facts(facts, 0.99, 10)["seconds_to_target"] == float("inf")


def test_the_killer_kills_workers_of_the_job_and_nobody_else(tmp_path):
    script = tmp_path / alchemist_jobs.SCRIPT.name
    script.write_text("import time; time.sleep(60)")
    workers = [subprocess.Popen([sys.executable, str(script)]) for _ in range(2)]
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        pids = [workers[0].pid, workers[1].pid]
        tell(tmp_path / "workers.jsonl", [{"rank": r, "pid": pids[r]} for r in range(2)])
        tell(tmp_path / "steps.jsonl", [{"step": 0}])
        killer = alchemist_jobs.Killer(tmp_path, 0.05, 3)
        killer.start()
        end = time.monotonic() + 10
        while not killer.kills and time.monotonic() < end:
            time.sleep(0.01)
        # The number of a process that is gone, taken by a stranger.
        tell(tmp_path / "workers.jsonl", [{"rank": r, "pid": other.pid} for r in range(2)])
        time.sleep(0.3)
        killer.stop()
        assert 1 <= len(killer.kills) <= 2
        assert [w.poll() for w in workers].count(-9) == len(killer.kills)
        assert other.poll() is None
    finally:
        for process in (*workers, other):
            process.kill()
            process.wait()


def test_a_spec_file_runs_and_a_missing_engine_is_said(tmp_path, monkeypatch):
    specs = alchemist_engines.write_specs(tmp_path / "a", 5)
    same = alchemist_engines.write_specs(tmp_path / "b", 5)
    assert [p.read_bytes() for p in specs.values()] == [p.read_bytes() for p in same.values()]
    engine = open_local(str(tmp_path / "jobs"), LocalSettings(idle_exit_s=0.5, poll_s=0.1))
    engine.set_capacity(2)
    ends = {name: alchemist_engines.outcome(engine, specs[name]) for name in ("again", "gang")}
    engine.close()
    assert ends["again"]["exits"] == ["SUCCEEDED", 0]
    assert "RESTARTING" in ends["again"]["states"]
    assert set(ends["gang"]["artefacts"]) == {"first", "second"}
    monkeypatch.setattr(alchemist_engines, "open_engine", missing)
    found = alchemist_engines.run_engine("ray", 5, tmp_path / "c")
    assert found["ran"] == 0
    assert "not here" in (tmp_path / "c" / "why.txt").read_text()


def missing(*_):
    raise ConfigError("its programs are not here")


def test_an_arm_trains_through_the_engine(tmp_path):
    """The parameter server's arm, a few steps: what its worker writes is what the arm reads."""
    settings = {**claim.SETTINGS, "slow_steps": 4, "mode_width": 4, "keep": 2, "target": 0.0,
                "slower": 1.5}  # fmt: skip
    context = Context(recipe="alchemist", scale="laptop", settings=settings, shared_dir=tmp_path,
                      seed_dir=tmp_path, arm_dir=tmp_path / "arm")  # fmt: skip
    context = replace(context, shared=alchemist_arms.setup(context))
    found = alchemist_arms.run_arm("async-slow", 1, context)
    assert found["samples_to_target"] == 256
    assert found["samples_per_s"] > 0
    assert found["communicate_s"] > 0


def results(**changed):
    shared = {"rows_0": 1.0, "rows_1": 2.0, "weights_0": 3.0, "weights_1": 4.0}
    killed = {**shared, "trained_twice": 0.0, "left_out": 0.0, "in_order": 1.0, "kills": 4.0,
              "goodput_over_young": 0.85, "interval_s": 1.0, "restart_s": 3.0,
              "lost_per_kill_s": 3.5}  # fmt: skip
    one = {"seconds_to_target": 10.0, "accuracy": 0.985, "step_s": 0.1}
    two = {"seconds_to_target": 6.0, "accuracy": 0.983, "step_s": 0.055,
           "communicate_s": 0.002, "step_samples_per_s": 2300.0, "bytes": 1e6, "bandwidth": 1e9,
           "latency_s": 1e-4}  # fmt: skip
    ran = {"ran": 1.0, "states_0": 5.0, "artefacts_0": 6.0, "exits_0": 7.0}
    arms = {
        "unbroken": shared, "killed": killed, "one": one, "two": two,
        "half": {"step_s": 0.05, "step_samples_per_s": 1280.0},
        "sync-slow": {"samples_per_s": 600.0, "samples_to_target": 8000.0},
        "async-slow": {"samples_per_s": 1200.0, "samples_to_target": 9000.0},
        "local": ran, "ray": ran, "slurm": ran,
    }  # fmt: skip
    for arm, values in changed.items():
        name = arm.replace("_", "-")
        arms[name] = {**arms[name], **values}
    return {
        arm: {key: np.array([value, value]) for key, value in values.items()}
        for arm, values in arms.items()
    }


def failed(found):
    return [check.name for check in claim.CHECKS if not check.judge(found).passed]


def test_checks_accept_what_is_claimed():
    assert failed(results()) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"killed": {"weights_1": 5.0}}, "A: the same weights"),
        ({"killed": {"rows_0": 5.0}}, "A: no step twice"),
        ({"killed": {"trained_twice": 1.0}}, "A: no step twice"),
        ({"killed": {"left_out": 1.0}}, "A: no step twice"),
        ({"killed": {"in_order": 0.0}}, "A: no step twice"),
        ({"killed": {"kills": 2.0}}, "A: workers were killed"),
        ({"killed": {"goodput_over_young": 0.79}}, "A: goodput over Young's prediction"),
        ({"killed": {"lost_per_kill_s": 4.1}}, "A: a kill costs less than a pause and a restart"),
        ({"two": {"seconds_to_target": 6.6}}, "B: two workers are faster"),
        ({"two": {"seconds_to_target": float("inf")}}, "B: two workers are faster"),
        ({"two": {"accuracy": 0.979}}, "B: equally good"),
        ({"async_slow": {"samples_per_s": 700.0}}, "B: not waiting for a straggler is faster"),
        ({"async_slow": {"samples_to_target": 8000.0}}, "B: and needs more samples"),
        ({"async_slow": {"samples_to_target": float("inf")}}, "B: and needs more samples"),
        ({"two": {"step_samples_per_s": 1900.0}}, "B: efficiency"),
        ({"two": {"communicate_s": 0.006}}, "B: efficiency"),
        ({"two": {"bandwidth": 1e7}}, "B: the step model"),
        ({"slurm": {"ran": 0.0}}, "C: all engines"),
        ({"slurm": {"ran": 0.0}}, "C: the same states"),
        ({"ray": {"states_0": 0.0}}, "C: the same states"),
        ({"ray": {"artefacts_0": 0.0}}, "C: the same artefacts"),
        ({"slurm": {"exits_0": 0.0}}, "C: the same exits"),
    ],
)
def test_checks_can_fail(changed, name):
    assert name in failed(results(**changed))


def test_a_missing_engine_is_named():
    found = results(ray={"ran": 0.0}, slurm={"ran": 0.0})
    checks = {check.name: check.judge(found) for check in claim.CHECKS}
    assert "not run on ray, slurm" in checks["C: all engines"].detail
    assert not checks["C: the same artefacts"].passed
