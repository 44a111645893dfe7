"""Small released-style files for the import and export tests."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from understudy.data.exporters.webdataset import npz_bytes

TEACHERS = {"openai": 6, "datacomp": 4}
WIDTH = sum(TEACHERS.values())


def picture(seed: int, height: int = 40, width: int = 52, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def unit_rows(count: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    at = 0
    for width in TEACHERS.values():
        part = values[:, at : at + width]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        at += width
    return values


def param_lists(count: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(count):
        top, left = rng.integers(0, 10, 2).tolist()
        height, width = rng.integers(5, 30, 2).tolist()
        ops = [[int(rng.integers(14)), float(np.float16(rng.normal()))] for _ in range(2)]
        lists.append([[top, left, height, width], ops])
    return lists


def pth_gz(arrays: dict[str, np.ndarray]) -> bytes:
    """What `torch.save` of bfloat16 tensors gives, gzipped: the released bf16 sets."""
    out = io.BytesIO()
    torch.save({k: torch.from_numpy(v).to(torch.bfloat16) for k, v in arrays.items()}, out)
    return gzip.compress(out.getvalue())


def sample(
    index: int,
    *,
    layout: str = "npz",
    views: int = 3,
    captions: int = 2,
    per_key: bool = False,
    image: bool = True,
    nested: bool = False,
) -> dict[str, bytes]:
    """One reinforced sample's files by extension."""
    lists = param_lists(views, index)
    texts = unit_rows(1 + captions, 1000 + index)
    arrays = {"image_emb": unit_rows(views, index), "text_emb": texts}
    if per_key:
        arrays.update(text_emb=texts[:1], syn_text_emb=texts[1:])
    files = {
        "url.txt": f"http://example.org/{index}.jpg".encode(),
        "txt": f"real caption {index}".encode(),
        "syn.json": json.dumps(
            {"syn_text": [f"syn {index} {s}" for s in range(captions)]}
        ).encode(),
        "paug.json": json.dumps({"param_aug": json.dumps(lists) if nested else lists}).encode(),
        layout: npz_bytes(arrays) if layout == "npz" else pth_gz(arrays),
        "json": json.dumps({"uid": f"uid{index:04d}", "sha256": f"{index:064x}"}).encode(),
    }
    return {"jpg": picture(index), **files} if image else files


def write_tar(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> Path:
    """Write groups (key, files by extension) as a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, files in samples:
            for extension, data in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def released(folder: Path, count: int = 7, per_shard: int = 4, **options) -> Path:
    """Write a folder of reinforced tars."""
    for start in range(0, count, per_shard):
        group = [
            (f"uid{i:04d}", sample(i, **options))
            for i in range(start, min(start + per_shard, count))
        ]
        write_tar(folder / f"{start // per_shard:08d}.tar", group)
    return folder
