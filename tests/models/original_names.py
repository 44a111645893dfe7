"""The key names of original MobileCLIP checkpoints, written out from their structure.

Independent of the converter's rules: pairs (original key, our key), generated block by block.
"""


def conv_bn(theirs, ours):
    yield f"{theirs}.conv.weight", f"{ours}.conv.weight"
    yield from batch_norm(f"{theirs}.bn", f"{ours}.bn")


def batch_norm(theirs, ours):
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield f"{theirs}.{part}", f"{ours}.{part}"


def weight_bias(theirs, ours):
    yield f"{theirs}.weight", f"{ours}.weight"
    yield f"{theirs}.bias", f"{ours}.bias"


def mobile_one(theirs, ours, *, scale, skip, folded):
    if folded:
        yield from weight_bias(f"{theirs}.reparam_conv", f"{ours}.conv")
        return
    yield from conv_bn(f"{theirs}.rbr_conv.0", f"{ours}.conv")
    if scale:
        yield from conv_bn(f"{theirs}.rbr_scale", f"{ours}.scale")
    if skip:
        yield from batch_norm(f"{theirs}.rbr_skip", f"{ours}.skip")


def ffn(theirs, ours):
    yield from conv_bn(f"{theirs}.convffn.conv", f"{ours}.ffn.ffn.conv")
    yield from weight_bias(f"{theirs}.convffn.fc1", f"{ours}.ffn.ffn.fc1")
    yield from weight_bias(f"{theirs}.convffn.fc2", f"{ours}.ffn.ffn.fc2")


def rep_mixer_block(theirs, ours, *, scale, folded):
    mixer = f"{theirs}.token_mixer"
    if folded:
        yield from weight_bias(f"{mixer}.reparam_conv", f"{ours}.mixer")
    else:
        mix = f"{mixer}.mixer"
        yield from mobile_one(mix, f"{ours}.mixer.mix", scale=scale, skip=True, folded=False)
        yield from batch_norm(f"{mixer}.norm.rbr_skip", f"{ours}.mixer.norm")
        yield f"{mixer}.layer_scale", f"{ours}.mixer.layer_scale.gamma"
    yield from ffn(theirs, ours)
    yield f"{theirs}.layer_scale", f"{ours}.ffn.layer_scale.gamma"


def attention_block(theirs, ours, norm):
    pairs = batch_norm if norm == "batch" else weight_bias
    yield from pairs(f"{theirs}.norm", f"{ours}.mixer.norm")
    yield f"{theirs}.token_mixer.qkv.weight", f"{ours}.mixer.attention.qkv.weight"
    yield from weight_bias(f"{theirs}.token_mixer.proj", f"{ours}.mixer.attention.proj")
    yield from ffn(theirs, ours)
    yield f"{theirs}.layer_scale_1", f"{ours}.mixer.layer_scale.gamma"
    yield f"{theirs}.layer_scale_2", f"{ours}.ffn.layer_scale.gamma"


def mci(config, *, folded=False):
    """Yield the pairs of an MCi tower."""
    scales = config.stem_scale_branch
    for i, (scale, skip) in enumerate(((scales, False), (scales, False), (False, True))):
        yield from mobile_one(
            f"patch_embed.{i}", f"stem.{i}", scale=scale, skip=skip, folded=folded
        )
    flat = 0
    for stage, count in enumerate(config.blocks):
        ours = f"stages.{stage}"
        if stage:
            down = f"network.{flat}.proj.0"
            if folded:
                yield from weight_bias(f"{down}.lkb_reparam", f"{ours}.downsample.0.conv")
            else:
                yield from conv_bn(f"{down}.lkb_origin", f"{ours}.downsample.0.large")
                yield from conv_bn(f"{down}.small_conv", f"{ours}.downsample.0.small")
            if config.se_downsample[stage]:
                yield from weight_bias(f"{down}.se.fc1", f"{ours}.downsample.0.se.reduce")
                yield from weight_bias(f"{down}.se.fc2", f"{ours}.downsample.0.se.expand")
            yield from mobile_one(
                f"network.{flat}.proj.1",
                f"{ours}.downsample.1",
                scale=False,
                skip=True,
                folded=folded,
            )
            flat += 1
        if config.positions[stage]:
            theirs = f"network.{flat}.reparam_conv" if folded else f"network.{flat}.pe"
            yield from weight_bias(theirs, f"{ours}.positions" + ("" if folded else ".conv"))
            flat += 1
        for i in range(count):
            theirs, block = f"network.{flat}.{i}", f"{ours}.blocks.{i}"
            if config.mixers[stage] == "attention":
                yield from attention_block(theirs, block, config.attention_norm)
            else:
                yield from rep_mixer_block(theirs, block, scale=True, folded=folded)
        flat += 1
    yield from mobile_one("conv_exp", "expand", scale=True, skip=False, folded=folded)
    yield from weight_bias("conv_exp.se.reduce", "expand.se.reduce")
    yield from weight_bias("conv_exp.se.expand", "expand.se.expand")
    yield "head.proj", "head.weight"


def transformer_block(theirs, ours):
    yield from weight_bias(f"{theirs}.pre_norm_mha.0", f"{ours}.norm1")
    yield from weight_bias(f"{theirs}.pre_norm_mha.1.qkv_proj", f"{ours}.attention.qkv")
    yield from weight_bias(f"{theirs}.pre_norm_mha.1.out_proj", f"{ours}.attention.proj")
    yield from weight_bias(f"{theirs}.pre_norm_ffn.0", f"{ours}.norm2")
    yield from weight_bias(f"{theirs}.pre_norm_ffn.1", f"{ours}.fc1")
    yield from weight_bias(f"{theirs}.pre_norm_ffn.4", f"{ours}.fc2")


def text(config, *, folded=False):
    """Yield the pairs of a text tower."""
    yield "embedding_layer.weight", "tokens.weight"
    yield "positional_embedding.pos_embed.pos_embed", "positions"
    count = config.depth + (2 if config.variant == "mct" else 0)
    for i in range(count):
        theirs, ours = f"transformer.{i}", f"blocks.{i}"
        if config.variant == "mct" and i in (0, count - 1):
            yield from rep_mixer_block(theirs, f"{ours}.block", scale=False, folded=folded)
        else:
            yield from transformer_block(theirs, ours)
    yield from weight_bias("final_layer_norm", "norm")
    yield "projection_layer", "head.weight"


def vit(config):
    """Yield the pairs of the ViT-B/16 tower."""
    for i in (0, 1):
        yield f"patch_emb.{i}.block.conv.weight", f"stem.{i}.conv.conv.weight"
        yield from batch_norm(f"patch_emb.{i}.block.norm", f"stem.{i}.conv.bn")
    yield from weight_bias("patch_emb.2.block.conv", "stem.2")
    yield "cls_token", "class_token"
    yield "pos_embed.pos_embed.pos_embed", "positions"
    for i in range(config.depth):
        yield from transformer_block(f"transformer.{i}", f"blocks.{i}")
    yield from weight_bias("post_transformer_norm", "norm")
    yield "classifier.proj", "head.weight"


def original_state(model):
    """Return our CLIP's tensors as an original checkpoint would hold them."""
    config, folded = model.config, model.is_folded
    image = vit(config.image) if config.image.kind == "vit" else mci(config.image, folded=folded)
    own = model.state_dict()
    out = {"logit_scale": own["logit_scale"]}
    for prefix, tower, pairs in (
        ("image_encoder.model.", "image.", image),
        ("text_encoder.", "text.", text(config.text, folded=folded)),
    ):
        for theirs, ours in pairs:
            value = own[tower + ours]
            if theirs in ("head.proj", "classifier.proj", "projection_layer"):
                value = value.T
            if theirs.endswith("pos_embed.pos_embed"):
                value = value.reshape(1, 1, *value.shape[-2:])
            out[prefix + theirs] = value
    missing = len(own) - len(out)
    assert missing == 0, f"{missing} of our tensors have no original name"
    return out
