"""Small vision-language models for tests."""

from __future__ import annotations

import torch

from understudy.models.build import build
from understudy.models.image.mci import MciConfig
from understudy.models.image.mci_sizes import FIVE_STAGES
from understudy.models.language.decoder import DecoderConfig
from understudy.models.language.hosted import hosted_config
from understudy.models.multimodal.vlm_config import VLMConfig, square
from understudy.models.text.train_tokenizer import train_words

TEXT = "which digit is at the top left right bottom ? 0 1 2 3 4 5 6 7 8 9 none how many largest"
TOWER = MciConfig(
    channels=(4, 4, 8, 16, 16), blocks=(1,) * 5, **{**FIVE_STAGES, "head_dim": 8}, image_size=128
)


def words():
    return train_words([TEXT])


def toy_config(size=128, **changes) -> VLMConfig:
    language = DecoderConfig(
        vocab_size=words().vocab_size, context=96, width=32, depth=2, num_heads=4, num_kv_heads=2
    )
    values = {"name": "toy", "image": TOWER, "language": language, "preprocess": square(size)}
    return VLMConfig(**{**values, **changes})


def toy(size=128, seed=0, **changes):
    model = build(toy_config(size, **changes), tokenizer=words(), seed=seed)
    # fresh words differ too little for greedy answers to say anything
    with torch.no_grad():
        if hasattr(model.language, "tokens"):
            model.language.tokens.weight.mul_(20)
        model.projector.layers[0].weight.mul_(50)
    return model.eval()


def hosted(vocab=64, **settings):
    values = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocab,
        "max_position_embeddings": 128, "tie_word_embeddings": True,
    }  # fmt: skip
    return hosted_config("qwen2", **{**values, **settings})
