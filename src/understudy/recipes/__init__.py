"""One module per paper: `Config`, `run(config)`, `CLAIM`, `PLAN`.

A recipe composes stages and holds no machinery; recipes never import each other. What a recipe's
claim or plan needs beside it stands in `<recipe>_claim.py`, `<recipe>_plan.py` and other files
that begin with the recipe's name.
"""

from __future__ import annotations

from understudy.core.lazy import LazyTable

RECIPES = LazyTable(
    "recipe",
    {
        "dataset-reinforcement": "understudy.recipes.dataset_reinforcement",
        "mobileclip": "understudy.recipes.mobileclip",
        "mobileclip2": "understudy.recipes.mobileclip2",
        "quality-captions": "understudy.recipes.quality_captions",
        "fastvlm": "understudy.recipes.fastvlm",
        "ape": "understudy.recipes.ape",
        "dclm": "understudy.recipes.dclm",
        "repetitions": "understudy.recipes.repetitions",
        "dataset-decomposition": "understudy.recipes.dataset_decomposition",
        "fct": "understudy.recipes.fct",
        "fastfill": "understudy.recipes.fastfill",
        "tic-clip": "understudy.recipes.tic_clip",
        "hierarchical-solver": "understudy.recipes.hierarchical_solver",
        "alchemist": "understudy.recipes.alchemist",
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
    "mobileclip2": (
        "MobileCLIP2: Improving Multi-Modal Reinforced Training",
        "2508.20691",
    ),
    "quality-captions": (
        "CLIP with Quality Captions: A Strong Pretraining for Vision Tasks",
        "2405.08911",
    ),
    "fastvlm": (
        "FastVLM: Efficient Vision Encoding for Vision Language Models",
        "2412.13303",
    ),
    "ape": (
        "APE: Aligning Pretrained Encoders to Quickly Learn Aligned Multimodal Representations",
        "2210.03927",
    ),
    "dclm": (
        "DataComp-LM: In search of the next generation of training sets for language models",
        "2406.11794",
    ),
    "repetitions": (
        "Datasets, Documents, and Repetitions: The Practicalities of Unequal Data Quality",
        "",
    ),
    "dataset-decomposition": (
        "Dataset Decomposition: Faster LLM Training with Variable Sequence Length Curriculum",
        "2405.13226",
    ),
    "fct": (
        "Forward Compatible Training for Large-Scale Embedding Retrieval Systems",
        "2112.02805",
    ),
    "fastfill": (
        "FastFill: Efficient Compatible Model Update",
        "2303.04766",
    ),
    "tic-clip": ("TiC-CLIP: Continual Training of CLIP Models", "2310.16226"),
    "hierarchical-solver": (
        "Sparse Hierarchical Solvers with Guaranteed Convergence",
        "1611.03189",
    ),
    "alchemist": ("Democratizing Production-Scale Distributed Deep Learning", "1811.00143"),
}
"""Title and arXiv number of each recipe's paper."""
