"""Pages of updates say what the numbers say."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from browser import browser, opened
from browser import drawn as drawn_plots

from understudy.core.errors import DataError
from understudy.report.page import Page
from understudy.report.updates import (
    compute_figure,
    compute_section,
    curve_figure,
    curve_page,
    gap_figure,
    transfer_figure,
    write_curve_page,
)
from understudy.update.curve import backfill_curves
from understudy.update.curve_files import to_plain, write_curves


@pytest.fixture
def curves():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    new = np.eye(4)[labels] + rng.standard_normal((40, 4)) * 0.2
    z = new + rng.standard_normal((40, 4)) * 0.6
    orders = {"uncertainty": rng.permutation(40), "random": [rng.permutation(40) for _ in "abc"]}
    groups = np.where(labels == 3, "<few>", "many")
    return backfill_curves(z, new, labels, orders, points=5, groups=groups)


def drawn(page):
    text = page.html()
    return [json.loads(t) for t in re.findall(r'data-for="plot\d+">(.*?)</script>', text, re.S)]


def test_curve_figures(curves):
    plain = to_plain(curves)
    lines = {line["name"]: line for line in curve_figure(plain, "map")["data"]}
    assert lines["uncertainty"]["y"] == curves.orders["uncertainty"].metrics["map"]
    assert lines["uncertainty"]["x"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert lines["random"]["line"] == {"dash": "dot"}
    gaps = {line["name"]: line["y"] for line in gap_figure(plain)["data"]}
    assert gaps["random"] == curves.orders["random"].gap


def test_curve_page(curves, tmp_path):
    facts = {
        "items": 40,
        "spearman": 0.4,
        "old_old": {"map": 0.123},
        "compatible": True,
        "update_gain": 0.5,
    }
    write_curves(curves, tmp_path, facts)
    path = write_curve_page(tmp_path, title="An update")
    text = path.read_text()
    assert "<title>An update</title>" in text
    assert "0.400" in text
    assert "has 50% of a full re-encoding" in text
    assert f"{curves.orders['uncertainty'].auc['map']:.4g}" in text
    assert "<few>" not in text
    page = curve_page(to_plain(curves, facts))
    assert len(drawn(page)) == 4  # three metrics and the gap
    bare = curve_page(to_plain(curves))
    assert "Spearman" not in bare.html()


def test_transfer_heat_map():
    figure = transfer_figure([[0.5, None, 0.1], [0.4, 0.6, 0.2], [0.3, float("nan"), 0.7]], "abc")
    (heat,) = figure["data"]
    assert heat["z"] == [[0.5, None, 0.1], [0.4, 0.6, 0.2], [0.3, None, 0.7]]
    assert heat["text"][0] == ["0.5", "", "0.1"]
    assert figure["layout"]["yaxis"]["autorange"] == "reversed"
    with pytest.raises(DataError, match=r"expected \[2, 2\] for 2 periods, got \[2, 3\]"):
        transfer_figure(np.ones((2, 3)), "ab")


def test_compute_against_quality():
    points = [
        {"name": "oracle", "compute": 4.0, "quality": 0.7},
        {"name": "sequential", "compute": 1.0, "qualities": [0.4, 0.6]},
    ]
    figure = compute_figure(points, "R@1", "C")
    means = {d["name"]: (d["x"], d["y"]) for d in figure["data"] if "name" in d}
    assert means == {"oracle": ([4.0], [0.7]), "sequential": ([1.0], [0.5])}
    dots = [d for d in figure["data"] if "name" not in d]
    assert [d["y"] for d in dots] == [[0.4, 0.6]]
    page = Page("t")
    compute_section(page, points, "R@1", "C")
    assert "sequential" in page.html()


@pytest.mark.browser
def test_a_browser_draws_every_plot(curves, tmp_path):
    if browser() is None:
        pytest.skip("no Chromium on this machine: install it to test the reports in a browser")
    page = curve_page(to_plain(curves))
    page.figure(transfer_figure(np.eye(3), ["2016", "2018", "2020"], "R@1"), height=280)
    compute_section(page, [{"name": "a", "compute": 1.0, "qualities": [0.1, 0.2]}], "R@1", "C")
    dom, console = opened(page.write(tmp_path / "page.html"), tmp_path / "profile")
    plots = drawn_plots(dom)
    assert len(plots) == 6
    assert all(count for name, count in plots.items() if name != "plot5"), plots
    assert dom.count('class="hm"') == 1  # the heat map is a picture
    assert console == ""
