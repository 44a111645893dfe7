"""The README's example runs, at a size for tests; its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from understudy.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    smaller = {
        "teacher=0": "teacher=0, train=130, test=10",
        "num_views=5": "num_views=2",
        "steps=1500": "steps=4",
        "warmup_steps=100": "warmup_steps=1",
    }
    for old, new in smaller.items():
        assert old in code
        code = code.replace(old, new, 1)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["folded"].is_folded
    assert (tmp_path / "runs" / "student" / "model.safetensors").exists()


def test_commands_of_the_readme_exist():
    shown = set(re.findall(r"^understudy ((?:[a-z]+ ?){1,2})", README, re.M))
    assert len(shown) >= 5
    for words in shown:
        first, *rest = words.split()
        assert (first,) in COMMANDS or (first, *rest[:1]) in COMMANDS, words
