"""What is minimised: pure functions of tensors, no state, no input or output.

Two levels. The functions of `contrastive`, `distill`, `topk` and `supervised` take tensors and
return one tensor. An *objective* (`OBJECTIVES`) takes a model's outputs and a batch, both
dictionaries, and returns a dictionary of scalars with the one to minimise under `"loss"`.

Importing this room costs nothing: torch is imported with the first objective.
"""

from understudy.core.lazy import LazyTable

OBJECTIVES = LazyTable(
    "objective",
    {
        "clip": "understudy.objectives.contrastive:clip",
        "siglip": "understudy.objectives.contrastive:siglip",
        "coca": "understudy.objectives.captioning:coca",
        "alignment": "understudy.objectives.alignment:alignment",
        "reinforced-clip": "understudy.objectives.reinforced:reinforced",
        "reinforced-siglip": "understudy.objectives.reinforced:reinforced_sigmoid",
        "classify": "understudy.objectives.supervised:classify",
        "hard-distillation": "understudy.objectives.supervised:hard_distillation",
        "online-kd": "understudy.objectives.supervised:online_kd",
        "topk": "understudy.objectives.topk:topk",
        "simclr": "understudy.objectives.selfsup:simclr",
        "reconstruct": "understudy.objectives.selfsup:reconstruct",
        "compatible": "understudy.objectives.compatible:compatible",
        "backward-compatible": "understudy.objectives.backward:backward_compatible",
        "causal-lm": "understudy.objectives.language:causal_lm",
        "segmentation": "understudy.objectives.dense:segmentation",
        "depth": "understudy.objectives.dense:depth",
    },
)
"""Objective names; each stands for `fn(outputs, batch, **weights) -> dict[str, Tensor]`."""
