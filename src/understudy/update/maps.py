"""Maps between embedding spaces, in one file each: weights, frozen classifier, manifest.

    from understudy.update.maps import load_map
    h = load_map("runs/map/map.safetensors")
    z, u = h.transform(old_vectors)

A map knows the space that it takes, the one that it leads to, what it was trained on and how well
it did on pairs that it never saw; all of that travels in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path
from understudy.core.hashing import hash_data
from understudy.data.spaces import Space
from understudy.models.embedding.chain import (
    MapModule,
    build_map,
    map_config_from_dict,
    map_config_to_dict,
)
from understudy.models.io import assign, weights_hash

if TYPE_CHECKING:
    import torch

FORMAT = "understudy-map"
VERSION = 1
CHUNK_ROWS = 512
"""Rows that go through the network at a time: activations of the published widths stay in cache."""
_HEAD = "classifier."


class CompatibleMap:
    """A map, ready to be used; make one with `load_map`, `fit_map` or `chain_maps`.

    Args:
        module: the network in training form; it is set to eval mode.
        manifest: what is known of it; see `understudy.update.map_manifest`.
        head: tensors `weight` and `bias` of the frozen classifier it was trained with, if any.

    Attributes:
        manifest: JSON-like facts.
        from_space: space of the vectors that it takes.
        to_space: space whose queries may search the mapped vectors.
        side_space: space of the side information; None for a map without.
    """

    def __init__(
        self,
        module: MapModule,
        manifest: Mapping[str, Any],
        head: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.module = module.eval()
        self.manifest, self.head = dict(manifest), dict(head or {})
        self.from_space = Space.from_dict(self.manifest["from_space"])
        self.to_space = Space.from_dict(self.manifest["to_space"])
        side = self.manifest.get("side_space")
        self.side_space = None if side is None else Space.from_dict(side)
        self._folded = module.fold().eval()
        self.fingerprint = hash_data(
            [
                map_config_to_dict(module.config),
                weights_hash(module),
                self.from_space.id,
                self.to_space.id,
                self.side_space.id if self.side_space else "",
            ]
        )

    @property
    def old_dim(self) -> int:
        """Width of the vectors that it takes."""
        return self.module.config.old_dim

    @property
    def new_dim(self) -> int:
        """Width of the vectors that it gives."""
        return self.module.config.new_dim

    @property
    def side_dim(self) -> int:
        """Width of the side information; 0 for a map without."""
        return self.module.config.side_dim

    @property
    def has_uncertainty(self) -> bool:
        """Whether it predicts uncertainties."""
        return self.module.config.uncertainty

    @property
    def flops_per_item(self) -> int:
        """Additions and multiplications of one item's matrix products."""
        return 2 * self.module.config.macs

    @property
    def num_parameters(self) -> int:
        """Numbers that were learned."""
        return sum(p.numel() for p in self.module.parameters())

    def to(self, device: str) -> CompatibleMap:
        """Move the inference form to a device and return the map."""
        self._folded = self._folded.to(device)
        return self

    def transform(
        self, old: np.ndarray, side: np.ndarray | None = None, *, chunk_rows: int = CHUNK_ROWS
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return mapped vectors float32 [N, new_dim] and uncertainties float32 [N], or None.

        Args:
            old: [N, old_dim] old embeddings.
            side: [N, side_dim] side information.
            chunk_rows: rows at a time.

        Raises:
            DataError: widths that are not the map's, no side information where it needs some, or
                another number of it.
        """
        import torch

        if old.ndim != 2 or (side is not None and len(side) != len(old)):
            shape = None if side is None else list(side.shape)
            raise DataError(
                f"map: expected old vectors [N, {self.old_dim}] and as much side information, got "
                f"{list(old.shape)} and {shape}."
            )
        if not self.side_dim:
            side = None
        device = next(self._folded.parameters()).device
        z = np.empty((len(old), self.new_dim), np.float32)
        u = np.empty(len(old), np.float32) if self.has_uncertainty else None

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.array(values, np.float32)).to(device)

        with torch.inference_mode():
            if not len(old):  # the widths are checked all the same
                self._folded.parts(tensor(old), None if side is None else tensor(side))
            for start in range(0, len(old), chunk_rows):
                part = slice(start, start + chunk_rows)
                out = self._folded.parts(
                    tensor(old[part]), None if side is None else tensor(side[part])
                )
                z[part] = out[0].cpu().numpy()
                if u is not None and out[1] is not None:
                    u[part] = out[1].cpu().numpy()
        return z, u

    def save(self, path: str | Path) -> Path:
        """Write the map to one safetensors file, atomically, and return the path."""
        from safetensors.torch import save_file

        header = {
            "format": FORMAT,
            "version": VERSION,
            "config": map_config_to_dict(self.module.config),
            "manifest": self.manifest,
        }
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        tensors |= {_HEAD + k: v.detach().cpu().contiguous() for k, v in self.head.items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={FORMAT: json.dumps(header, sort_keys=True)})
        return Path(path)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return a map file's header (`config`, `manifest`, ...) without reading weights.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: not a map, or a newer version's.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise DataError(f"{path}: no such map file; 'understudy update fit' writes one.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a safetensors file ({error}).") from None
    if FORMAT not in metadata:
        raise ModelError(f"{path}: not a map file; 'understudy update fit' writes one.")
    header = json.loads(metadata[FORMAT])
    if header["version"] != VERSION:
        raise ModelError(
            f"{path}: map format version {header['version']}; this version reads {VERSION}."
        )
    return header


def load_map(path: str | Path) -> CompatibleMap:
    """Load a map.

    Args:
        path: the file, or the folder of the run that wrote `map.safetensors`.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: not a map's file, a newer version's, or weights that do not fit.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if path.is_dir():
        path = path / "map.safetensors"
    header = read_manifest(path)
    module = build_map(map_config_from_dict(header["config"], str(path)))
    tensors = load_file(path)
    head = {k.removeprefix(_HEAD): v for k, v in tensors.items() if k.startswith(_HEAD)}
    assign(module, {k: v for k, v in tensors.items() if not k.startswith(_HEAD)}, str(path))
    return CompatibleMap(module, header["manifest"], head)
