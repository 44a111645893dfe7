"""Put a vision-language model together from parts that exist: a tower and a language model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from understudy.core.errors import ConfigError
from understudy.core.seeds import seed_for
from understudy.models import io
from understudy.models.convert_vlm import load_vision_tower
from understudy.models.language.coder import JsonCoder
from understudy.models.language.decoder import Decoder, DecoderConfig
from understudy.models.language.hosted import load_hosted
from understudy.models.language.language_config import LanguageConfig
from understudy.models.language.llama2c import load_llama2c_pair
from understudy.models.multimodal.vlm import VLM
from understudy.models.multimodal.vlm_config import VLMConfig
from understudy.models.runs import load_run, names_weights
from understudy.models.text.train_tokenizer import train_words
from understudy.models.towers import ImageConfig

DECODERS = {
    "tiny": DecoderConfig(width=128, depth=4, num_heads=4),
    "nano": DecoderConfig(),
    "small": DecoderConfig(width=256, depth=6, num_heads=8),
}
"""Own decoders by name: about 0.8, 2.2 and 4.8 M parameters without the embeddings."""


def load_language(name: str, texts: Iterable[str] = (), *, seed: int = 0) -> tuple[Any, Any]:
    """Return (language model, tokenizer) by name or path.

    Args:
        name: a key of `DECODERS` (fresh weights, a tokenizer of whole words made of `texts`), a
            folder of a Transformers model, or a file of llama2.c with its tokenizer behind it.
        texts: what a fresh tokenizer is made of.
        seed: of fresh weights.

    Raises:
        ConfigError: none of these.
        DataError: pickled weights, or files that are missing or damaged.
    """
    if name in DECODERS:
        tokenizer = train_words(texts)
        config = replace(DECODERS[name], vocab_size=tokenizer.vocab_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("language", seed))
            return Decoder(config), tokenizer
    path = Path(name)
    if path.is_dir():
        return load_hosted(path), JsonCoder.from_folder(path)
    if path.is_file():
        return load_llama2c_pair(path)
    raise ConfigError(
        f"language: '{name}' is neither {', '.join(DECODERS)} nor a folder of a Transformers model "
        "nor a file of llama2.c."
    )


def load_tower(name: str) -> tuple[ImageConfig, Any]:
    """Return (configuration, weights or None) of a vision tower by name or path.

    Args:
        name: a key of `understudy.models.MODELS`; a run or weights file whose image tower is taken,
            a CLIP's, say; or `fastvlm:PATH`, the tower of a released FastVLM checkpoint.
    """
    from understudy import models

    released = name.removeprefix("fastvlm:")
    if released != name or names_weights(name):
        model: Any = load_vision_tower(released) if released != name else load_run(name)
        config = model.config.image
        state = {k: v for k, v in model.image.state_dict().items() if not k.startswith("head.")}
        return config, (state, model.fold_state)
    found = models.config(name)
    if isinstance(found, LanguageConfig):
        raise ConfigError(f"{name}: a language model has no vision tower; take fastvithd, say.")
    return found.image, None


def assemble(
    config: VLMConfig, language: Any, tokenizer: Any, tower: Any = None, *, seed: int = 0
) -> VLM:
    """Return a model of given parts; what is not given has fresh weights.

    Args:
        config: of the whole; its `language` is replaced by the language model's own.
        language: a `Decoder` or a `Hosted`.
        tokenizer: the language model's.
        tower: weights of the vision tower and their folding state, as `load_tower` returns them.
        seed: of the fresh parts.

    Raises:
        ModelError: the tower's weights do not fit; folded and unfolded are told apart.
    """
    config = replace(config, language=language.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("model", seed))
        model = VLM(config, tokenizer, language)
    if tower is None:
        return model
    state, fold_state = tower
    if fold_state != "no":
        model = model.eval().fold(fold_state).requires_grad_(True)
    take_tower(model, state)
    return model


def take_tower(model: VLM, state: Any) -> None:
    """Put a tower's weights into a model.

    Raises:
        ModelError: they do not fit.
    """
    own = model.image.tower
    own.is_folded = model.is_folded  # type: ignore[assignment]
    # which side is folded decides what the message says
    try:
        io.assign(own, state, "vision tower")
    finally:
        del own.is_folded
