"""The aligner: a head per modality that brings frozen encoders into one space, and a temperature.

    from understudy.models.multimodal.aligner import Aligner, AlignerConfig, Modality
    config = AlignerConfig(
        dim=256,
        modalities=(
            Modality(name="image", encoder="efficientnet-lite0", in_dim=1280),
            Modality(name="text", encoder="all-minilm-l6-v2", in_dim=384),
        ),
    )
    outputs = Aligner(config)({"image": features, "text": vectors})   # unit vectors

An aligner knows its encoders by id and hash and never holds them: it works on their features,
cached or fresh. Nothing in it is special to images and texts; there may be more than two
modalities.

Reference: APE, NeurIPS 2022 workshop "Has it Trained Yet?"; logit scale of arXiv 2103.00020.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.core.config import from_dict, to_dict
from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path
from understudy.core.seeds import seed_for
from understudy.models.io import assign
from understudy.models.multimodal.aligner_config import AlignerConfig, Modality, count_parameters
from understudy.models.multimodal.heads import apply_to_tokens, make_head, mean_tokens

__all__ = [
    "Aligner",
    "AlignerConfig",
    "Modality",
    "count_parameters",
    "load_aligner",
    "save_aligner",
]

FORMAT = "understudy-aligner"
VERSION = 1


class Aligner(nn.Module):
    """Heads over frozen features.

    Args:
        config: sides and sizes.
        seed: of the weights; None draws from torch's global generator.

    Attributes:
        manifest: JSON-like facts that travel in the file: curation report, seen names, scores.
    """

    def __init__(self, config: AlignerConfig, seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.manifest: dict[str, Any] = {}
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed_for("aligner", seed))
            self.heads = nn.ModuleDict(
                {
                    m.name: make_head(m.head, m.in_dim, config.dim, m.placement)
                    for m in config.modalities
                }
            )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.init_scale)))

    def scale(self) -> Float[Tensor, ""]:
        """Return exp(theta), at most `max_scale`."""
        return self.logit_scale.exp().clamp(max=self.config.max_scale)

    def project(
        self,
        name: str,
        features: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Return a head's output, not normalised.

        Args:
            name: the modality.
            features: pooled [B, in_dim], or tokens [B, T, in_dim].
            mask: valid tokens; None if all are.

        Raises:
            DataError: features of another width, tokens missing, or a row that is all padding.
        """
        side = self.config.modality(name)
        if features.shape[-1] != side.in_dim:
            raise DataError(
                f"{name} features of encoder '{side.encoder}': {features.shape[-1]} numbers, the "
                f"head expects {side.in_dim}; cache them with the encoder it was made for."
            )
        head = self.heads[name]
        if side.placement == "tokens":
            if features.ndim != 3:
                raise DataError(
                    f"{name} features of encoder '{side.encoder}': the head works on tokens "
                    f"[batch, length, {side.in_dim}], got {list(features.shape)}; cache them with "
                    "tokens."
                )
            return apply_to_tokens(head, features, mask)
        return head(mean_tokens(features, mask) if features.ndim == 3 else features)

    def encode(
        self,
        name: str,
        features: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Return unit vectors of the shared space; see `project`."""
        return F.normalize(self.project(name, features, mask), dim=-1)

    def forward(
        self,
        features: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return `<name>_features` of every modality given, and `logit_scale`.

        Args:
            features: by modality; see `project`.
            masks: valid tokens by modality.
            present: bool [B] by modality: rows that have it. Other rows never enter its head and
                come out as zeros.
        """
        masks, present = masks or {}, present or {}
        out: dict[str, Tensor] = {"logit_scale": self.scale()}
        for name, values in features.items():
            mask, rows = masks.get(name), present.get(name)
            if rows is None or bool(rows.all()):
                out[f"{name}_features"] = self.encode(name, values, mask)
                continue
            full = values.new_zeros(len(values), self.config.dim, dtype=self.logit_scale.dtype)
            if bool(rows.any()):
                found = self.encode(name, values[rows], None if mask is None else mask[rows])
                full = full.masked_scatter(rows[:, None].expand_as(full), found.to(full.dtype))
            out[f"{name}_features"] = full
        return out


def save_aligner(
    aligner: Aligner, path: str | Path, manifest: Mapping[str, Any] | None = None
) -> Path:
    """Write heads, temperature, configuration and manifest to one safetensors file, atomically.

    Args:
        aligner: what to save.
        path: where to.
        manifest: JSON-like facts to keep; added to `aligner.manifest`.
    """
    from safetensors.torch import save_file

    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(aligner.config),
        "manifest": {**aligner.manifest, **(manifest or {})},
    }
    state = {k: v.detach().cpu().contiguous() for k, v in aligner.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={FORMAT: json.dumps(header, sort_keys=True)})
    return Path(path)


def load_aligner(path: str | Path) -> Aligner:
    """Load an aligner, in eval mode.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: not an aligner's file, a newer version's, or weights that do not fit.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise DataError(f"{path}: no such aligner file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a safetensors file ({error}).") from None
    if FORMAT not in metadata:
        raise ModelError(
            f"{path}: not an aligner's file; 'understudy run ape' writes one (models are loaded "
            "with understudy.models.load)."
        )
    header = json.loads(metadata[FORMAT])
    if header["version"] != VERSION:
        raise ModelError(
            f"{path}: aligner format version {header['version']}; this version reads {VERSION}."
        )
    aligner = Aligner(from_dict(AlignerConfig, header["config"], f"{path}: config"), seed=0)
    aligner.manifest = header["manifest"]
    assign(aligner, load_file(path), str(path))
    return aligner.eval()
