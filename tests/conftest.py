"""Shared fixtures: one thread, no progress bars, assets and browsers only where they exist."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# Continuous integration draws the same examples every time: a submission must not fail by luck.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def pytest_runtest_setup(item):
    from understudy.data.fetch import cached

    for mark in item.iter_markers("asset"):
        for name in mark.args:
            if cached(name) is None:
                pytest.skip(f"asset '{name}' isn't in the cache: understudy data fetch {name}")
