"""Load OpenCLIP's CoCa weights into our captioner, so that they can be fine-tuned and run cached.

Facts about tensor names only. As in `understudy.models.convert`, nothing but tensors is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from understudy import models
from understudy.core.errors import ModelError
from understudy.models.convert import read_state
from understudy.models.convert_names import OPENCLIP_TEXT, Rules, rename
from understudy.models.io import assign, skeleton
from understudy.models.multimodal.coca import CoCa, CoCaConfig
from understudy.models.text.tokenizer import Tokenizer

_BLOCKS: Rules = (
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_1_kv\.", ".norm_context."),
    (r"\.ln_2\.", ".norm2."),
    (r"\.attn\.out_proj\.", ".attention.proj."),
    (r"\.mlp\.c_fc\.", ".fc1."),
    (r"\.mlp\.c_proj\.", ".fc2."),
)
_VISUAL: Rules = (
    *_BLOCKS,
    (r"^conv1\.", "image.stem.0."),
    (r"^class_embedding$", "image.class_token"),
    (r"^positional_embedding$", "image.positions"),
    (r"^ln_pre\.", "image.pre_norm."),
    (r"^transformer\.resblocks\.", "image.blocks."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attention.qkv.\1"),
    (r"^attn_pool\.query$", "pool.queries"),
    (r"^attn_pool\.ln_q\.", "pool.norm_query."),
    (r"^attn_pool\.ln_k\.", "pool.norm_context."),
    (r"^attn_pool\.attention\.", "pool.attention."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "head.T"),
)
_DECODER: Rules = (
    *_BLOCKS,
    (r"^resblocks\.(.*)\.attn\.in_proj_(weight|bias)$", r"resblocks.\1.attention.qkv.\2"),
    (r"^resblocks\.", "blocks."),
    (r"^cross_attn\.", "cross."),
    (r"^ln_final\.", "norm."),
    (r"^text_projection$", "head.T"),
)
_TEXT: Rules = (*OPENCLIP_TEXT, (r"^cls_emb$", "class_token"))
_PARTS = ("query", "key", "value")


def load_openclip_coca(
    state: Mapping[str, Tensor],
    config: CoCaConfig | str = "coca-vit-l14",
    *,
    weights: str = "openclip-coca",
    tokenizer: Tokenizer | None = None,
) -> CoCa:
    """Make a captioner from an OpenCLIP CoCa's state dict.

    Args:
        state: tensors under `visual.`, `text.`, `text_decoder.`, and `logit_scale`.
        config: our configuration of the same sizes, or its name; the shifted mask of these weights
            (`legacy_mask`) is switched on.
        weights: what to call the checkpoint.
        tokenizer: CLIP's, if at hand.

    Raises:
        ModelError: the tensors do not fit that configuration.
    """
    found = models.config(config) if isinstance(config, str) else config
    where = f"OpenCLIP weights for {found.name}"
    if not isinstance(found, CoCaConfig):
        raise ModelError(f"{where}: it is no captioner; use coca-vit-l14, say.")
    if "logit_scale" not in state or "visual.attn_pool.query" not in state:
        raise ModelError(
            f"{where}: expected tensors under 'visual.', with attentional pooling, 'text.' and "
            "'text_decoder.'; for a CLIP use understudy.models.convert."
        )
    merged: dict[str, Tensor] = {"logit_scale": state["logit_scale"].reshape(())}
    for key, value in state.items():
        for prefix, ours, rules in (
            ("visual.", "", _VISUAL),
            ("text.", "text.", _TEXT),
            ("text_decoder.", "decoder.", _DECODER),
        ):
            if key.startswith(prefix) and not key.endswith("attn_mask"):
                merged |= _place(key[len(prefix) :], value, ours, rules)
    model = skeleton(replace(found, legacy_mask=True, weights=weights))
    own = model.state_dict()
    for name in ("image.class_token", "image.positions"):
        if name in merged and name in own and merged[name].numel() == own[name].numel():
            merged[name] = merged[name].reshape(own[name].shape)
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):
            merged[name] = torch.zeros((), dtype=value.dtype)
    assign(model, {k: v.contiguous() for k, v in merged.items()}, where)
    assert isinstance(model, CoCa)
    if tokenizer is not None:
        model.set_tokenizer(tokenizer)
    return model


def _place(key: str, value: Tensor, ours: str, rules: Rules) -> dict[str, Tensor]:
    """Return our tensors for one of theirs."""
    # attention over another sequence keeps its three projections apart in our model
    head, _, name = key.rpartition(".attn.")
    apart = head.startswith("cross_attn.") or head == "attn_pool"
    if apart and name.startswith("in_proj_"):
        kind = name.removeprefix("in_proj_")
        pieces = zip(_PARTS, value.chunk(3), strict=True)
        named = {f"{head}.attention.{part}.{kind}": piece for part, piece in pieces}
    elif apart and name.endswith("_proj_weight"):
        part = _PARTS["qkv".index(name[0])]
        named = {f"{head}.attention.{part}.weight": value}
    else:
        named = {key: value}
    found = {}
    for theirs, piece in named.items():
        renamed = rename(theirs, rules)
        if renamed == "head.T":
            renamed, piece = "head.weight", piece.T
        found[ours + renamed] = piece
    return found


def load_released_coca(
    path: str | Path,
    config: CoCaConfig | str = "coca-vit-l14",
    *,
    tokenizer: Tokenizer | None = None,
) -> CoCa:
    """Load an OpenCLIP CoCa checkpoint file: `.safetensors`, or a `.pt` or `.bin` of plain tensors.

    Raises:
        DataError: the file is missing or holds anything but tensors.
        ModelError: the tensors do not fit.
    """
    return load_openclip_coca(
        read_state(path), config, weights=Path(path).stem, tokenizer=tokenizer
    )
