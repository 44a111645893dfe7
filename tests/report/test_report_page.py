"""Pages: escaping, numbers, figures that a browser draws."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from browser import browser, drawn, opened

from understudy.core.errors import DataError
from understudy.evaluate.claim_verify import conclude
from understudy.evaluate.claims import Arm, AtMost, Claim, Difference
from understudy.report import figures
from understudy.report.claims import claim_page, write_page
from understudy.report.page import Page, cell_text, picture_uri
from understudy.report.students import StudentRun, StudentsReport, students_page, write_students


def run_arm(arm, seed, context):
    raise AssertionError("not called")


def verdict(gain=0.2):
    claim = Claim(
        recipe="toy",
        statement="Strong beats plain by 10 points.",
        arms=(Arm(name="plain", description="CE"), Arm(name="strong", description="KL <b>")),
        seeds=(1, 2, 3),
        metrics=("top1",),
        checks=(
            Difference(name="gain", metric="top1", better="strong", worse="plain", margin=0.1),
            AtMost(name="cheap", metric="seconds", arm="strong", over="plain", limit=1.15),
        ),
        budget="60 epochs",
        failure="the interval touches 0",
        run_arm=run_arm,
        scales={"laptop": {}},
    )
    plain = {"top1": np.array([0.5, 0.51, 0.52]), "seconds": np.array([1.0, 1.0, 1.0])}
    strong = {"top1": plain["top1"] + gain + np.array([0, 0.01, 0.02]), "seconds": np.ones(3)}
    return conclude(claim, "laptop", (1, 2, 3), {"plain": plain, "strong": strong}, 12.0)


def test_cells():
    assert cell_text(1234567) == "1,234,567"
    assert cell_text(0.123456) == "0.1235"
    assert cell_text(float("nan")) == "not finite"
    assert cell_text(None) == "-"
    assert cell_text(True) == "yes"
    assert cell_text(123456.7) == "123,457"


def test_nothing_that_a_user_wrote_becomes_markup():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    page = Page(evil, evil)
    page.section(evil)
    page.text(evil)
    page.table((evil,), [(evil,)], caption=evil)
    page.code(evil)
    page.figure(figures.bars({evil: {evil: 1.0}}, evil), caption=evil)
    page.pictures([[(np.zeros((4, 4, 3), np.uint8), evil)]])
    html = page.html()
    assert "<script>alert(1)" not in html
    assert "<img src=x" not in html
    # The figure's data survive as they were.
    data = re.search(r'data-for="plot1">(.*?)</script>', html, re.S)
    assert json.loads(data[1])["data"][0]["name"] == evil


def test_numbers_that_are_not_finite_do_not_break_a_figure():
    page = Page("t")
    page.figure(figures.curves({"a": ([0, 1], [float("nan"), float("inf")])}, "x", "y"))
    data = re.search(r'data-for="plot1">(.*?)</script>', page.html(), re.S)
    assert json.loads(data[1])["data"][0]["y"] == [None, None]


def test_a_page_needs_nothing_from_outside():
    page = Page("t")
    page.figure(figures.curves({"a": ([0, 1], [1, 2])}, "x", "y"))
    html = page.html()
    outside = re.findall(r'(?:src|href)="(?!#|data:)([^"]+)"', html.split("<script>")[0])
    assert outside == []
    assert Page("no figures").html().count("<script") == 0


def test_pictures_must_be_rgb():
    assert picture_uri(np.zeros((2, 2, 3), np.uint8)).startswith("data:image/png;base64,")
    with pytest.raises(DataError, match=r"picture: expected \[H, W, 3\]"):
        picture_uri(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(("gain", "word"), [(0.2, "The claim holds."), (0.0, "The claim failed.")])
def test_claim_page_says_what_happened(gain, word):
    html = claim_page(verdict(gain)).html()
    assert word in html
    assert "KL &lt;b&gt;" in html
    assert "margin" in html


def test_students_page_without_a_store(tmp_path):
    log = tmp_path / "plain" / "metrics.jsonl"
    log.parent.mkdir()
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "eval/retrieval.r1": 0.3}\n')
    report = StudentsReport(
        title="Two students",
        lead="tiny",
        runs=[
            StudentRun(name="plain", path=log.parent, scores={"retrieval.r1": 0.3}),
            StudentRun(name="reinforced", path=None, scores={"retrieval.r1": 0.6}),
        ],
        headline="retrieval.r1",
        costs={"reinforce": {"views": 1.0, "teachers": 2.0}},
        latency=[("model", "ms"), ("nano", 1.5)],
        verdict="better",
    )
    page = students_page(report)
    kinds = [block["kind"] for block in page.blocks]
    assert kinds.count("figure") == 4  # scores, loss, r1, ledger
    assert "reinforced" in page.html()


@pytest.mark.browser
def test_a_browser_draws_every_plot_and_reports_no_error(tmp_path):
    if browser() is None:
        pytest.skip("no Chromium on this machine: install it to test the reports in a browser")
    log = tmp_path / "plain" / "metrics.jsonl"
    log.parent.mkdir()
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "eval/retrieval.r1": 0.3}\n')
    runs = [
        StudentRun(name="plain", path=log.parent, scores={"retrieval.r1": 0.3, "retrieval.r5": 0.5})
    ]
    report = StudentsReport(
        title="t", lead="l", runs=runs, costs={"reinforce": {"views": 1.0}}, headline="retrieval.r1"
    )
    pages = [
        write_page(verdict(), tmp_path / "claim.html"),
        write_students(report, tmp_path / "students.html"),
    ]
    for page in pages:
        dom, console = opened(page, tmp_path / "profile")
        plots = drawn(dom)
        assert plots, "the page has no plots"
        assert all(plots.values()), f"an empty plot in {page.name}: {plots}"
        assert console == ""
