"""Small teachers that ship inside the package, so that the demo and the tests need not train them.

Each is a safetensors file under 1 MB with a card (JSON) beside it that says how it was made and
what it can do. `scripts/train_teachers.py` (`make teachers`) trains them again.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from understudy.core.config import check_choice
from understudy.core.files import read_json

FOLDER = Path(str(resources.files(__package__).joinpath("weights")))
NAMES = ("clip-teacher-a", "clip-teacher-b")
"""Two CLIPs for scenes of handwritten digits (`scenes:pairs`), of different widths and seeds."""


def shipped(name: str) -> Path:
    """Return the weights file of a shipped teacher.

    Raises:
        ConfigError: no such teacher.
    """
    check_choice(name, NAMES, "shipped teacher")
    return FOLDER / f"{name}.safetensors"


def card(name: str) -> dict[str, Any]:
    """Return how a shipped teacher was made, and its scores on scenes that it never saw."""
    return read_json(shipped(name).with_suffix(".json"))
