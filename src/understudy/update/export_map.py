"""A map as one ONNX file, for services that do not run Python."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from understudy.compress.onnx import check_onnx, write_onnx
from understudy.core.files import atomic_path
from understudy.models.embedding.chain import MapModule
from understudy.update.maps import CompatibleMap


class MapGraph(nn.Module):
    """A map as it is exported: [old, side] in one matrix, [z, u] in one matrix.

    Args:
        module: the map's inference form.
    """

    def __init__(self, module: MapModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, vectors: Tensor) -> Tensor:
        """Return [batch, new_dim], or [batch, new_dim + 1] with the uncertainty last."""
        config = self.module.config
        old = vectors[:, : config.old_dim]
        side = vectors[:, config.old_dim :] if config.side_dim else None
        z, u = self.module.parts(old, side)
        return z if u is None else torch.cat([z, u[:, None]], dim=-1)


def export_map(compatible: CompatibleMap, path: str | Path) -> Path:
    """Write a map to ONNX, checked in ONNX Runtime, and return the path.

    The input `vectors` is [batch, old_dim + side_dim]; the output `mapped` is [batch, new_dim], and
    a last column of uncertainties where the map predicts them. The manifest is in the metadata.

    Args:
        compatible: the map.
        path: where to.

    Raises:
        MissingExtraError: the extra `export` is missing.
        ModelError: ONNX Runtime does not give what the map gives.
    """
    graph = MapGraph(compatible.module.fold()).eval()
    width = compatible.old_dim + compatible.side_dim
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(count, width, generator=generator) for count in (2, 5)]
    with atomic_path(path) as temporary:
        write_onnx(
            graph,
            samples[0],
            temporary,
            input_name="vectors",
            output_name="mapped",
            metadata={
                "understudy-map": json.dumps(compatible.manifest),
                "fingerprint": compatible.fingerprint,
            },
        )
        check_onnx(graph, temporary, samples)
    return Path(path)
