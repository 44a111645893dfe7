"""Published training recipes of language models, and small ones for a laptop's processor.

DataComp-LM fixes a recipe a scale and lets the data vary (arXiv 2406.11794, table 10; the
configurations of mlfoundations/dclm). Dataset Decomposition trains OpenLM models on sequences of
many lengths (arXiv 2405.13226, app. C; apple/ml-dataset-decomposition).

>>> from understudy.train.presets_lm import LM_PRESETS, lm_preset
>>> lm_preset("dclm-400m-1x").train.steps
7851
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.train.lm_config import LMConfig, lm_train_config

SEED = 124
SEQUENCE = 2_048
"""Tokens of a sequence in DataComp-LM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DclmScale:
    """One of DataComp-LM's competition scales.

    Attributes:
        name: of the scale.
        model: key of `understudy.models.MODELS`.
        parameters: as its configuration counts them: without the gains of normed queries and keys.
        multiplier: of the 20 tokens a parameter.
        warmup_steps: of the learning rate.
        lr: peak learning rate.
        weight_decay: of AdamW; lr times it is kept at 1e-4.
        z_loss: weight of the squared logsumexp.
        sequences: of 2,048 tokens, a step.
        flop: of a run, as published.
        h100_hours: of a run, as published.
        pool_tokens: of the pool of documents that is filtered, as published.
    """

    name: str
    model: str
    parameters: int
    multiplier: int = 1
    warmup_steps: int = 5_000
    lr: float = 3e-3
    weight_decay: float = 0.033
    z_loss: float = 1e-4
    sequences: int = 256
    flop: float
    h100_hours: int
    pool_tokens: float

    @property
    def tokens(self) -> int:
        """Tokens of a run: 20 a parameter, times the multiplier."""
        return 20 * self.parameters * self.multiplier

    @property
    def tokens_per_step(self) -> int:
        """Input tokens of an optimiser step."""
        return self.sequences * SEQUENCE

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return round(self.tokens / self.tokens_per_step)


_LARGE = {"model": "openlm-7b", "parameters": 6_889_410_560, "lr": 2e-3, "weight_decay": 0.05}
_LARGE |= {"z_loss": 5e-6, "sequences": 2048}

DCLM_SCALES: Mapping[str, DclmScale] = MappingProxyType(
    {
        scale.name: scale
        for scale in (
            DclmScale(
                name="400m-1x", model="dclm-400m", parameters=411_616_256, warmup_steps=2_000,
                sequences=512, flop=2.0e19, h100_hours=26, pool_tokens=469e9,
            ),
            DclmScale(
                name="1b-1x", model="openlm-1b", parameters=1_439_795_200, flop=2.4e20,
                h100_hours=240, pool_tokens=1.64e12,
            ),
            DclmScale(
                name="3b-1x", model="openlm-3b", parameters=2_795_932_160, flop=9.4e20,
                h100_hours=740, pool_tokens=3.18e12,
            ),
            DclmScale(
                name="7b-1x", flop=5.7e21, h100_hours=3_700, pool_tokens=7.85e12, **_LARGE,
            ),
            DclmScale(
                name="7b-2x", multiplier=2, flop=1.1e22, h100_hours=7_300, pool_tokens=15.7e12,
                **_LARGE,
            ),
        )
    }
)  # fmt: skip
"""The five scales. The pool of 400M-1x is 469 B tokens in the paper, 137 B in its repository."""


def dclm(scale: str = "400m-1x") -> LMConfig:
    """Return the fixed recipe of a scale: packed sequences, attention across documents allowed.

    Args:
        scale: a key of `DCLM_SCALES`.

    Raises:
        ConfigError: no such scale.
    """
    check_choice(scale, DCLM_SCALES, "dclm scale")
    found = DCLM_SCALES[scale]
    return LMConfig(
        model=found.model,
        tokens_per_step=found.tokens_per_step,
        z_loss=found.z_loss,
        seed=SEED,
        train=lm_train_config(
            found.steps,
            warmup_steps=found.warmup_steps,
            lr=found.lr,
            weight_decay=found.weight_decay,
            batch_size=found.sequences,
            decay_all=True,
            precision="bf16",
            checkpoint_every=1_000,
        ),
    )


def dataset_decomposition(
    model: str = "openlm-1b", tokens: int = 28_795_904_000, curriculum: str = "grow-p2"
) -> LMConfig:
    """Return the run on buckets of 2^8 to 2^13 tokens: 64 x 8,192 tokens a step, 8 cycles.

    Args:
        model: openlm-160m, -410m, -1b, -3b or -7b.
        tokens: of the run; published for 1B are 28,795,904,000 (and 96 x 2^30 in the studies).
        curriculum: odds of the buckets, shortest first; `grow-p2` is 32:16:8:4:2:1.
    """
    per_step = 64 * 8_192
    return LMConfig(
        model=model,
        changes={"decoder.context": 8_192, "decoder.rope_base": 100_000.0},
        tokens_per_step=per_step,
        tokens=tokens,
        curriculum=curriculum,
        cycles=8,
        seed=SEED,
        train=lm_train_config(
            round(tokens / per_step),
            warmup_steps=5_000,
            decay_all=True,
            precision="bf16",
            checkpoint_every=1_000,
        ),
    )


def nano(model: str = "openlm-nano", tokens: int = 3_000_000, *, lr: float = 3e-3) -> LMConfig:
    """Return a run for a laptop's processor: 16,384 tokens a step, a tenth of it warm-up.

    Args:
        model: openlm-nano or llama-nano.
        tokens: of the run; steps are rounded to the nearest.
        lr: peak learning rate; the cosine ends at a hundredth of it.

    Raises:
        ConfigError: fewer tokens than two steps.
    """
    per_step = 16_384
    steps = round(tokens / per_step)
    if steps < 2:
        raise ConfigError(f"nano: {tokens} tokens are fewer than two steps of {per_step}.")
    return LMConfig(
        model=model,
        tokens_per_step=per_step,
        train=lm_train_config(
            steps, warmup_steps=max(steps // 10, 1), lr=lr, min_lr=lr / 100, log_every=10
        ),
    )


LM_PRESETS: Mapping[str, Callable[[], LMConfig]] = MappingProxyType(
    {
        **{f"dclm-{name}": partial(dclm, name) for name in DCLM_SCALES},
        "dataset-decomposition": dataset_decomposition,
        "openlm-nano": nano,
        "llama-nano": partial(nano, "llama-nano"),
    }
)
"""Recipes by name."""


def lm_preset(name: str) -> LMConfig:
    """Return a recipe.

    Raises:
        ConfigError: no such recipe; the message lists them.
    """
    check_choice(name, LM_PRESETS, "preset")
    return LM_PRESETS[name]()
