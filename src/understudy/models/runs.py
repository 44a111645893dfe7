"""Find a model by what people type: a run's folder, a weights file or a model's name."""

from __future__ import annotations

from pathlib import Path

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.models import MODELS, create, load
from understudy.models.base import Model

WEIGHTS = {
    "auto": ("model-ema.safetensors", "model.safetensors"),
    "final": ("model.safetensors",),
    "ema": ("model-ema.safetensors",),
    "best": ("model-best.safetensors",),
}
"""Which file of a run's folder is meant: the first that is there."""


def weights_path(run: str | Path, which: str = "auto") -> Path:
    """Return the weights file of a run.

    Args:
        run: a run's folder, or a `.safetensors` file (then `which` must be `"auto"`).
        which: `"final"`, `"ema"` (averaged) or `"best"` weights; `"auto"` takes the averaged ones
            if the run has them, else the final ones.

    Raises:
        ConfigError: an unknown `which`, or a choice for a single file.
        DataError: the file is not there; the message lists what the folder holds.
    """
    check_choice(which, WEIGHTS, "weights")
    path = Path(run)
    if path.is_dir():
        for name in WEIGHTS[which]:
            if (path / name).is_file():
                return path / name
        held = sorted(p.name for p in path.glob("*.safetensors"))
        found = f"it has {', '.join(held)}" if held else "it has no finished weights"
        raise DataError(f"{path}: no {' or '.join(WEIGHTS[which])} in this run's folder; {found}.")
    if which != "auto":
        raise ConfigError(f"{path}: weights '{which}' can only be chosen in a run's folder.")
    if not path.is_file():
        raise DataError(f"{path}: no such run's folder or weights file.")
    return path


def names_weights(name: str) -> bool:
    """Say whether a name stands for stored weights and not for a model of `MODELS`."""
    return name not in MODELS and Path(name).exists()


def load_run(run: str | Path, which: str = "auto", *, folded: bool | None = None) -> Model:
    """Load the model of a run's folder or weights file, in eval mode.

    Args:
        run: see `weights_path`.
        which: see `weights_path`.
        folded: see `understudy.models.load`.
    """
    return load(weights_path(run, which), folded=folded)


def find_model(name: str | Path, *, seed: int = 0) -> Model:
    """Return the model that a name or a path stands for, in eval mode.

    Args:
        name: a run's folder, a weights file, or a key of `understudy.models.MODELS`, which gives
            fresh weights.
        seed: of fresh weights.

    Raises:
        ConfigError: neither a known name nor a path that exists; the message lists near matches.
    """
    if Path(name).exists():
        return load_run(name)
    if Path(name).suffix == ".safetensors" or len(Path(name).parts) > 1:
        raise ConfigError(f"{name}: no such run's folder or weights file, nor a model's name.")
    if name not in MODELS:
        MODELS.load(str(name))  # raises, with near matches
    return create(str(name), seed=seed).eval()
