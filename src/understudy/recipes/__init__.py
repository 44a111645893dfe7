"""One module per paper: `Config`, `run(config)`, `CLAIM`, `PLAN`.

A recipe composes stages and holds no machinery; recipes never import each other. What a recipe's
claim or plan needs beside it stands in `<recipe>_claim.py` and `<recipe>_plan.py`.
"""

from __future__ import annotations

from understudy.core.lazy import LazyTable

RECIPES = LazyTable(
    "recipe",
    {
        "dataset-reinforcement": "understudy.recipes.dataset_reinforcement",
        "mobileclip": "understudy.recipes.mobileclip",
        "ape": "understudy.recipes.ape",
    },
)
"""Recipe names; each stands for a module."""

PAPERS: dict[str, tuple[str, str]] = {
    "dataset-reinforcement": (
        "Reinforce Data, Multiply Impact: Improved Model Accuracy and Robustness with Dataset "
        "Reinforcement",
        "2303.08983",
    ),
    "mobileclip": (
        "MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training",
        "2311.17049",
    ),
    "ape": (
        "APE: Aligning Pretrained Encoders to Quickly Learn Aligned Multimodal Representations",
        "2210.03927",
    ),
}
"""Title and arXiv number of each recipe's paper."""
