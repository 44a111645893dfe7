"""How other packages name the tensors of the same networks.

Facts about key names only: ml-mobileclip's original checkpoints (MobileCLIP2's S3, S4 and L use
OpenCLIP's names), timm's `fastvit_mci*`, `vit_base_mci_224` and `vit_large_patch14_clip_224`,
OpenCLIP's text towers. Each table is applied in order to a key; patterns are
regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from understudy.models.image.mci import MciConfig

Rules = Sequence[tuple[str, str]]

FASTVIT: Rules = (
    # order matters: a folded branch first, then the containers
    (r"\.reparam_conv\.", ".conv."),
    (r"\.conv_kxk\.0\.", ".conv."),
    (r"\.conv_scale\.", ".scale."),
    (r"\.identity\.", ".skip."),
    (r"\.se\.fc1\.", ".se.reduce."),
    (r"\.se\.fc2\.", ".se.expand."),
    (r"\.large_conv\.", ".large."),
    (r"\.small_conv\.", ".small."),
    (r"\.downsample\.proj\.", ".downsample."),
    (r"\.pos_emb\.pos_enc\.", ".positions.conv."),
    (r"\.pos_emb\.conv\.", ".positions."),
    (r"\.token_mixer\.mixer\.", ".mixer.mix."),
    (r"\.token_mixer\.norm\.skip\.", ".mixer.norm."),
    (r"\.token_mixer\.layer_scale\.", ".mixer.layer_scale."),
    (r"\.token_mixer\.conv\.", ".mixer."),
    (r"\.token_mixer\.(qkv|proj)\.", r".mixer.attention.\1."),
    (r"(\.blocks\.\d+)\.norm\.", r"\1.mixer.norm."),
    (r"\.layer_scale_1\.", ".mixer.layer_scale."),
    (r"\.layer_scale_2\.", ".ffn.layer_scale."),
    (r"(\.blocks\.\d+)\.layer_scale\.", r"\1.ffn.layer_scale."),
    (r"\.mlp\.", ".ffn.ffn."),
    (r"^final_conv\.", "expand."),
    (r"^head\.fc\.", "head."),
)
"""timm's `fastvit_mci*` to `MciTower`."""

MOBILECLIP_BRANCHES: Rules = (
    (r"\.rbr_conv\.", ".conv_kxk."),
    (r"\.rbr_scale\.", ".conv_scale."),
    (r"\.rbr_skip\.", ".identity."),
    (r"\.lkb_origin\.", ".large_conv."),
    (r"\.lkb_reparam\.", ".reparam_conv."),
    (r"\.convffn\.", ".mlp."),
    (r"\.layer_scale$", ".layer_scale.gamma"),
    (r"\.layer_scale_([12])$", r".layer_scale_\1.gamma"),
)
"""Original branch names to timm's."""

MOBILECLIP_BLOCK: Rules = (
    (r"\.pre_norm_mha\.0\.", ".norm1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attention.qkv."),
    (r"\.pre_norm_mha\.1\.out_proj\.", ".attention.proj."),
    (r"\.pre_norm_ffn\.0\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.", ".fc1."),
    (r"\.pre_norm_ffn\.4\.", ".fc2."),
)
"""Original transformer block to `TransformerBlock`."""

MOBILECLIP_TEXT: Rules = (
    *MOBILECLIP_BLOCK,
    (r"^embedding_layer\.", "tokens."),
    (r"^positional_embedding\.pos_embed\.pos_embed$", "positions"),
    (r"^final_layer_norm\.", "norm."),
    (r"^projection_layer$", "head.T"),
    (r"^transformer\.(\d+)\.(?=token_mixer|mlp|layer_scale)", r"blocks.\1.block."),
    (r"^transformer\.", "blocks."),
    (r"\.reparam_conv\.", ".conv."),
    (r"\.conv_kxk\.0\.", ".conv."),
    (r"\.identity\.", ".skip."),
    (r"\.token_mixer\.mixer\.", ".mixer.mix."),
    (r"\.token_mixer\.norm\.skip\.", ".mixer.norm."),
    (r"\.token_mixer\.layer_scale\.", ".mixer.layer_scale."),
    (r"\.token_mixer\.conv\.", ".mixer."),
    (r"\.block\.layer_scale\.", ".block.ffn.layer_scale."),
    (r"\.mlp\.", ".ffn.ffn."),
)
"""Original text towers (after `MOBILECLIP_BRANCHES`) to `TextTower`; `head.T` is transposed."""

MOBILECLIP_VIT: Rules = (
    *MOBILECLIP_BLOCK,
    (r"^patch_emb\.([01])\.block\.conv\.", r"stem.\1.conv.conv."),
    (r"^patch_emb\.([01])\.block\.norm\.", r"stem.\1.conv.bn."),
    (r"^patch_emb\.2\.block\.conv\.", "stem.2."),
    (r"^cls_token$", "class_token"),
    (r"^pos_embed\.pos_embed\.pos_embed$", "positions"),
    (r"^transformer\.", "blocks."),
    (r"^post_transformer_norm\.", "norm."),
    (r"^classifier\.proj$", "head.T"),
)
"""Original ViT-B/16 to `VitTower`."""

TIMM_VIT: Rules = (
    (r"^patch_embed\.backbone\.([01])\.conv\.", r"stem.\1.conv.conv."),
    (r"^patch_embed\.backbone\.([01])\.bn\.", r"stem.\1.conv.bn."),
    (r"^patch_embed\.backbone\.2\.conv\.", "stem.2."),
    (r"^patch_embed\.proj\.", "stem.0."),
    (r"^norm_pre\.", "pre_norm."),
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "positions"),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.", "."),
)
"""timm's `vit_base_mci_224` and `vit_large_patch14_clip_224` to `VitTower`."""

OPENCLIP_TEXT: Rules = (
    (r"^token_embedding\.", "tokens."),
    (r"^positional_embedding$", "positions"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attention.qkv.\1"),
    (r"\.attn\.out_proj\.", ".attention.proj."),
    (r"\.mlp\.c_fc\.", ".fc1."),
    (r"\.mlp\.c_proj\.", ".fc2."),
    (r"^ln_final\.", "norm."),
    (r"^text_projection$", "head.T"),
)
"""OpenCLIP's text tower to `TextTower`."""


def rename(key: str, rules: Rules) -> str:
    """Apply every rule in order to a key."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def original_mci_rules(config: MciConfig) -> Rules:
    """Return the rules from an original MCi checkpoint's keys to timm's.

    The original keeps one flat list `network.N`: before each stage but the first its
    down-sampler, then its positional encoding if it has one, then its blocks.
    """
    rules: list[tuple[str, str]] = [
        *MOBILECLIP_BRANCHES,
        (r"^patch_embed\.", "stem."),
        (r"^conv_exp\.", "final_conv."),
        (r"\.se\.reduce\.", ".se.fc1."),
        (r"\.se\.expand\.", ".se.fc2."),
        (r"^head\.proj$", "head.T"),
    ]
    place = 0
    for stage, positions in enumerate(config.positions):
        if stage:
            rules.append((rf"^network\.{place}\.proj\.", f"stages.{stage}.downsample.proj."))
            place += 1
        if positions:
            rules.append((rf"^network\.{place}\.pe\.", f"stages.{stage}.pos_emb.pos_enc."))
            folded = f"stages.{stage}.pos_emb.reparam_conv."
            rules.append((rf"^network\.{place}\.reparam_conv\.", folded))
            place += 1
        rules.append((rf"^network\.{place}\.", f"stages.{stage}.blocks."))
        place += 1
    return rules


class Naming(NamedTuple):
    """How a package names, and runs, a CLIP model of this family.

    Attributes:
        package: what to call its weights.
        image: prefix of the image tower's tensors.
        text: prefix of the text tower's.
        vit: rules of a ViT image tower.
        mci: tables of rules of an MCi image tower, by its configuration.
        texts: tables of rules of the text tower.
        changes: what differs in the configuration of a ViT with a convolutional stem.
        hint: what to do with the other package's names.
    """

    package: str
    image: str
    text: str
    vit: Rules
    mci: Callable[[MciConfig], tuple[Rules, ...]]
    texts: tuple[Rules, ...]
    changes: Mapping[str, Any]
    hint: str


ORIGINAL = Naming(
    package="original",
    image="image_encoder.model.",
    text="text_encoder.",
    vit=MOBILECLIP_VIT,
    mci=lambda config: (original_mci_rules(config), FASTVIT),
    texts=(MOBILECLIP_BRANCHES, MOBILECLIP_TEXT),
    changes={},
    hint="for OpenCLIP's names use load_openclip_state_dict",
)
OPENCLIP = Naming(
    package="OpenCLIP",
    image="visual.trunk.",
    text="text.",
    vit=TIMM_VIT,
    mci=lambda config: (FASTVIT,),
    texts=(OPENCLIP_TEXT,),
    # OpenCLIP runs that ViT through timm: no padding in the stem, a smaller epsilon.
    changes={"stem_padding": 0, "norm_eps": 1e-6},
    hint="for an original checkpoint use load_original",
)
