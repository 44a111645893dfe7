from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import claim_arms

from understudy.core.errors import ConfigError, DataError, UnderstudyError
from understudy.evaluate import claim_runs
from understudy.evaluate.claim_verify import judge, verify
from understudy.evaluate.claims import (
    Arm,
    AtLeast,
    AtMost,
    Claim,
    Difference,
    Predicate,
    Within,
)
from understudy.evaluate.verdict import FIELDS, Verdict

ARMS = (
    Arm(name="plain", description="labels only"),
    Arm(name="strong", description="with help"),
    Arm(name="broken", description="control"),
)
GAIN = Difference(name="gain", metric="top1", better="strong", worse="plain", margin=0.05)


def claim(**changes):
    base = {
        "recipe": "toy",
        "statement": "Strong beats plain by five points.",
        "arms": ARMS,
        "seeds": (0, 1, 2),
        "metrics": ("top1",),
        "checks": (GAIN,),
        "budget": "no steps",
        "failure": "the interval touches 0",
        "run_arm": claim_arms.run_arm,
        "scales": {"laptop": {}, "gpu": {"shift": 1.0}},
    }
    return Claim(**(base | changes))


def results(**arms):
    return {arm: {"m": np.array(values, float)} for arm, values in arms.items()}


def only(check, **arms):
    return check.judge(results(**arms))


class TestChecks:
    def test_difference_needs_margin_and_interval(self):
        check = Difference(name="d", metric="m", better="a", worse="b", margin=1.0)
        assert only(check, a=[3, 4, 5], b=[1, 2, 3]).passed
        assert not only(check, a=[1.5, 2.5, 3.5], b=[1, 2, 3]).passed  # below the margin
        wide = only(check, a=[9, 0, 0], b=[1, 1, 1])  # mean 2, but one seed did it
        assert wide.values["mean"] == pytest.approx(2.0)
        assert wide.values["ci95"][0] <= 0
        assert not wide.passed

    def test_difference_without_interval(self):
        check = Difference(name="d", metric="m", better="a", worse="b", margin=1.0, ci_above=None)
        assert only(check, a=[9, 0, 0], b=[1, 1, 1]).passed

    def test_difference_interval_bound_other_than_zero(self):
        check = Difference(name="d", metric="m", better="a", worse="b", margin=0.0, ci_above=1.5)
        assert only(check, a=[3, 4, 5], b=[1, 2, 3]).passed
        check = replace(check, ci_above=2.0)
        assert not only(check, a=[3, 4, 5], b=[1, 2, 3]).passed

    def test_difference_in_each_seed(self):
        check = Difference(name="d", metric="m", better="a", worse="b", margin=1.0, each_seed=True)
        assert only(check, a=[3, 4, 5], b=[1, 2, 3]).passed
        found = only(check, a=[3, 4, 3.5], b=[1, 2, 3])
        assert not found.passed
        assert "2 of 3 seeds" in found.detail
        assert only(replace(check, each_seed_margin=0.0), a=[3, 4, 3.5], b=[1, 2, 3]).passed

    def test_difference_of_errors(self):
        check = Difference(
            name="d", metric="m", better="a", worse="b", margin=0.1, lower_is_better=True
        )
        assert only(check, a=[0.1, 0.2], b=[0.3, 0.4]).passed
        assert not only(check, a=[0.3, 0.4], b=[0.1, 0.2]).passed
        assert "b - a" in check.statement

    def test_difference_of_one_seed_has_no_interval(self):
        check = Difference(name="d", metric="m", better="a", worse="b")
        found = only(check, a=[3], b=[1])
        assert not found.passed
        assert "one seed" in found.detail

    def test_negative_margin_means_no_worse_than(self):
        check = Difference(name="d", metric="m", better="a", worse="b", margin=-0.01, ci_above=None)
        assert only(check, a=[0.495, 0.5], b=[0.5, 0.5]).passed
        assert not only(check, a=[0.4, 0.5], b=[0.5, 0.5]).passed

    def test_not_finite_never_passes(self):
        for check in (
            Difference(name="d", metric="m", better="a", worse="b", margin=-1e9, ci_above=None),
            AtMost(name="d", metric="m", arm="a", limit=1e9),
            AtLeast(name="d", metric="m", arm="b", over="a", limit=-1e9),
            Within(name="d", metric="m", a="a", b="b", num_se=1e9, floor=1e9),
        ):
            assert not only(check, a=[1, float("nan")], b=[1, 2]).passed

    def test_ratio_is_paired_by_seed(self):
        check = AtMost(name="r", metric="m", arm="a", over="b", limit=1.15)
        assert only(check, a=[1.1, 11], b=[1, 10]).passed
        assert not only(check, a=[1.2, 11.5], b=[1, 10]).passed
        assert only(replace(check, reduce="min"), a=[1.1, 30], b=[1, 10]).passed
        assert not only(replace(check, reduce="max"), a=[1.1, 30], b=[1, 10]).passed
        median = replace(check, reduce="median")
        assert only(median, a=[1.1, 30, 1.1], b=[1, 10, 1]).passed

    def test_bounds_without_ratio(self):
        assert only(AtLeast(name="r", metric="m", arm="a", limit=2), a=[1, 3]).passed
        assert not only(AtLeast(name="r", metric="m", arm="a", limit=2.1), a=[1, 3]).passed
        assert only(AtMost(name="r", metric="m", arm="a", limit=2), a=[1, 3]).passed

    def test_zero_divisor_fails(self):
        check = AtMost(name="r", metric="m", arm="a", over="b", limit=1.15)
        assert not only(check, a=[1, 1], b=[0, 1]).passed

    def test_unknown_reduce(self):
        with pytest.raises(ConfigError, match="reduce is 'sum'; expected mean, median, max or min"):
            AtMost(name="r", metric="m", arm="a", limit=1, reduce="sum")

    def test_within_standard_errors(self):
        check = Within(name="w", metric="m", a="a", b="b", num_se=2)
        delta = np.array([0.1, -0.05, 0.02, 0.01])
        se = delta.std(ddof=1) / 2
        assert abs(delta.mean()) <= 2 * se
        assert only(check, a=delta + 1, b=np.ones(4)).passed
        assert not only(check, a=delta + 2, b=np.ones(4)).passed

    def test_within_a_number_and_floor(self):
        chance = Within(name="w", metric="m", a="a", value=0.1, num_se=2, floor=0.02)
        assert only(chance, a=[0.11, 0.11]).passed  # standard error is 0, the floor decides
        assert not only(replace(chance, floor=0.001), a=[0.11, 0.11]).passed
        assert chance.arms == ("a",)

    def test_missing_arm_and_metric_are_named(self):
        with pytest.raises(DataError, match="no arm 'z'; there are a, b"):
            only(Difference(name="d", metric="m", better="a", worse="z"), a=[1, 2], b=[1, 2])
        with pytest.raises(DataError, match="arm 'a' reports no metric 'n'; it reports m"):
            only(AtMost(name="d", metric="n", arm="a", limit=1), a=[1, 2])

    def test_predicate(self):
        check = Predicate(
            name="p", statement="a grows", fn=lambda r: (bool(np.diff(r["a"]["m"]).min() > 0), "ok")
        )
        assert only(check, a=[1, 2]).passed
        assert not only(check, a=[2, 1]).passed


class TestClaim:
    def test_refuses_what_could_not_be_judged(self):
        with pytest.raises(ConfigError, match="check 'd' reads arm 'nobody'; there are plain"):
            claim(checks=(Difference(name="d", metric="m", better="plain", worse="nobody"),))
        with pytest.raises(ConfigError, match="no check is required, so it could not fail"):
            claim(checks=(replace(GAIN, required=False),))
        with pytest.raises(ConfigError, match="'plain' is there twice"):
            claim(arms=(ARMS[0], ARMS[0], ARMS[1]))
        with pytest.raises(ConfigError, match="give at least 2"):
            claim(seeds=(1,))
        with pytest.raises(ConfigError, match="not all different"):
            claim(seeds=(1, 1))
        with pytest.raises(ConfigError, match="cannot be part of a file name"):
            claim(arms=(*ARMS, Arm(name="a/b", description="")))
        with pytest.raises(ConfigError, match="at least one metric"):
            claim(metrics=())

    def test_unknown_scale(self, tmp_path):
        with pytest.raises(
            ConfigError,
            match="no scale 'paper'; it is tested at laptop, gpu. "
            "'understudy plan toy' counts that size",
        ):
            verify(claim(), scale="paper", workdir=tmp_path, out=None)

    def test_describe_names_everything(self):
        text = claim().describe()
        for part in ("five points", "labels only", "gain", "no steps", "touches 0", "0, 1, 2"):
            assert part in text


class TestVerify:
    def test_pass_writes_exactly_the_fields(self, tmp_path):
        verdict = verify(claim(), workdir=tmp_path / "w", out=tmp_path / "out")
        data = json.loads((tmp_path / "out" / "laptop" / "toy.json").read_text())
        assert tuple(data) == FIELDS
        assert verdict.passed
        assert data["verdict"] == "pass"
        assert data["arms"]["strong"]["top1"] == pytest.approx([0.6, 0.601, 0.602])
        assert data["difference"]["mean"] == pytest.approx(0.1)
        assert data["difference"]["ci95"] == pytest.approx([0.1, 0.1])
        assert data["margin"] == 0.05
        assert data["seeds"] == [0, 1, 2]
        assert Verdict.read(tmp_path / "out" / "laptop" / "toy.json").to_dict() == data

    def test_failed_claim_is_written_the_same_way(self, tmp_path):
        hard = replace(GAIN, margin=0.2)
        verdict = verify(claim(checks=(hard,)), workdir=tmp_path / "w", out=tmp_path / "out")
        data = json.loads((tmp_path / "out" / "laptop" / "toy.json").read_text())
        assert not verdict.passed
        assert data["verdict"] == "fail"
        assert tuple(data) == FIELDS
        assert "FAIL" in verdict.text()

    def test_reported_checks_do_not_decide(self, tmp_path):
        extra = Difference(
            name="hope", metric="top1", better="plain", worse="strong", required=False
        )
        verdict = verify(claim(checks=(extra, GAIN)), workdir=tmp_path, out=None)
        assert verdict.passed
        assert [c.passed for c in verdict.checks] == [False, True]
        assert verdict.difference["mean"] == pytest.approx(0.1)  # of the required one

    def test_one_failed_required_check_fails_the_claim(self, tmp_path):
        ratio = AtMost(name="cost", metric="step_seconds", arm="strong", over="plain", limit=1.05)
        verdict = verify(claim(checks=(GAIN, ratio)), workdir=tmp_path, out=None)
        assert not verdict.passed
        assert [c.passed for c in verdict.checks] == [True, False]

    def test_prepare_and_setup_reach_the_arms(self, tmp_path):
        full = claim(prepare=claim_arms.prepare, setup=claim_arms.setup)
        verdict = verify(full, workdir=tmp_path, out=None)
        assert verdict.arms["plain"]["top1"] == pytest.approx([0.4, 0.411, 0.422])

    def test_scale_settings_reach_the_arms(self, tmp_path):
        verdict = verify(claim(), scale="gpu", workdir=tmp_path, out=None)
        assert verdict.arms["plain"]["top1"][0] == pytest.approx(1.5)
        assert verdict.scale == "gpu"

    def test_finished_arms_are_kept(self, tmp_path):
        verify(claim(), workdir=tmp_path, out=None)
        verify(claim(), seeds=(0, 1, 2, 3), workdir=tmp_path, out=None)
        calls = [f.read_text() for f in tmp_path.rglob("calls")]
        assert calls == ["x"] * 12
        verify(claim(), workdir=tmp_path, out=None, resume=False)
        assert len(list(tmp_path.rglob("calls"))) == 9

    def test_an_error_names_the_arm_and_the_rest_is_kept(self, tmp_path):
        switch = tmp_path / "switch"
        weak = claim(run_arm=claim_arms.failing_arm, scales={"laptop": {"switch": str(switch)}})
        with pytest.raises(DataError, match="toy, seed 1, arm strong: no data today"):
            verify(weak, workdir=tmp_path / "w", out=None)
        switch.write_text("on")
        assert verify(weak, workdir=tmp_path / "w", out=None).passed
        first = next((tmp_path / "w").rglob("seed-0/arm-plain/calls"))
        assert first.read_text() == "x"

    def test_key_follows_settings_and_code(self, monkeypatch):
        def key(settings):
            return claim_runs._key(claim(), "laptop", settings)

        before = key({})
        assert before == key({})
        assert before != key({"steps": 2})
        monkeypatch.setattr(claim_runs, "code_hash", lambda module: "other code")
        assert before != key({})
        with pytest.raises(ConfigError, match="must be plain data"):
            key({"fn": len})

    def test_code_hash_sees_the_claims_own_module(self):
        assert claim_runs.code_hash("claim_arms") != claim_runs.code_hash("json")

    @pytest.mark.parametrize(
        ("arm", "message"),
        [
            (claim_arms.empty_arm, "returned no metrics"),
            (claim_arms.text_arm, "metric 'top1' is 'good', expected a number"),
            (claim_arms.uneven_arm, "arm 'plain' reports 'ece' for only one of the seeds 0 and 1"),
        ],
    )
    def test_bad_metrics(self, tmp_path, arm, message):
        with pytest.raises(DataError, match=message):
            verify(claim(run_arm=arm), workdir=tmp_path, out=None)

    def test_main_metric_must_be_there(self, tmp_path):
        other = claim(metrics=("recall",))
        with pytest.raises(DataError, match="reports no 'recall', the main metric"):
            verify(other, workdir=tmp_path, out=None)

    def test_divergence_is_a_failure_and_valid_json(self, tmp_path):
        verdict = verify(
            claim(run_arm=claim_arms.diverging_arm), workdir=tmp_path, out=tmp_path / "out"
        )
        assert not verdict.passed
        text = (tmp_path / "out" / "laptop" / "toy.json").read_text()
        assert "NaN" not in text
        assert json.loads(text)["arms"]["strong"]["top1"] == [None] * 3
        assert "not finite" in verdict.text()

    def test_processes_give_the_same_verdict(self, tmp_path):
        full = claim(prepare=claim_arms.prepare, setup=claim_arms.setup, seeds=(0, 1))
        one = verify(full, workdir=tmp_path / "one", out=None)
        two = verify(full, workdir=tmp_path / "two", out=None, jobs=2)
        assert one.difference == two.difference
        assert one.arms["plain"]["top1"] == two.arms["plain"]["top1"]
        pids = {p for arm in two.arms.values() for p in arm["pid"]}
        assert pids.isdisjoint({p for arm in one.arms.values() for p in arm["pid"]})

    def test_a_killed_process_loses_nothing_that_was_finished(self, tmp_path):
        weak = claim(
            run_arm=claim_arms.dying_arm,
            scales={"laptop": {"switch": str(tmp_path / "switch")}},
        )
        with pytest.raises(UnderstudyError, match="run the same command again"):
            verify(weak, workdir=tmp_path / "w", out=None, jobs=2)
        kept = len(list((tmp_path / "w").rglob("arm-*.json")))
        assert 0 < kept < 9
        assert verify(weak, workdir=tmp_path / "w", out=None, jobs=2).passed

    def test_functions_that_cannot_travel_are_refused(self, tmp_path):
        local = claim(run_arm=lambda arm, seed, context: {"top1": 1.0})
        with pytest.raises(ConfigError, match="define run_arm and prepare at the top of a module"):
            verify(local, workdir=tmp_path, out=None, jobs=2)

    def test_no_jobs(self, tmp_path):
        with pytest.raises(ConfigError, match="jobs must be at least 1"):
            verify(claim(), workdir=tmp_path, out=None, jobs=0)

    def test_not_a_verdict_file(self, tmp_path):
        path = tmp_path / "v.json"
        path.write_text('{"recipe": "x"}')
        with pytest.raises(DataError, match="not a verdict file; it has no 'scale'"):
            Verdict.read(path)


def test_judge_keeps_the_order():
    found = judge(
        claim(checks=(GAIN, AtMost(name="b", metric="top1", arm="plain", limit=9))),
        {a.name: {"top1": np.array([1.0, 2.0])} for a in ARMS},
    )
    assert [f.name for f in found] == ["gain", "b"]
