"""Published recipes of language models, and the operations that they cost."""

import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError
from understudy.models.count import parameters
from understudy.models.language.cost import (
    matmul_parameters,
    training_flop,
)
from understudy.train.presets_lm import (
    DCLM_SCALES,
    LM_PRESETS,
    dataset_decomposition,
    lm_preset,
    nano,
)

TABLE = {  # tokens, warm-up, lr, weight decay, z-loss, sequences a step
    "400m-1x": (8_232_325_120, 2000, 3e-3, 0.033, 1e-4, 512),
    "1b-1x": (28_795_904_000, 5000, 3e-3, 0.033, 1e-4, 256),
    "3b-1x": (55_918_643_200, 5000, 3e-3, 0.033, 1e-4, 256),
    "7b-1x": (137_788_211_200, 5000, 2e-3, 0.05, 5e-6, 2048),
    "7b-2x": (2 * 137_788_211_200, 5000, 2e-3, 0.05, 5e-6, 2048),
}


@pytest.mark.parametrize("name", list(DCLM_SCALES))
def test_scales_are_those_of_the_paper(name):
    scale, config = DCLM_SCALES[name], lm_preset(f"dclm-{name}")
    tokens, warmup, lr, decay, z_loss, sequences = TABLE[name]
    assert scale.tokens == tokens
    train = config.train
    assert (train.warmup_steps, train.lr, train.weight_decay) == (warmup, lr, decay)
    assert (config.z_loss, train.batch_size, train.min_lr) == (z_loss, sequences, 3e-5)
    assert (train.betas, train.clip_norm, config.seed) == ((0.9, 0.95), 1.0, 124)
    assert (train.precision, train.schedule, train.decay_all) == ("bf16", "cosine", True)
    assert abs(train.steps * config.tokens_per_step - tokens) < config.tokens_per_step
    assert train.lr * train.weight_decay == pytest.approx(1e-4, rel=0.02)
    decoder = models.config(config.model).decoder
    with torch.device("meta"):
        count = parameters(models.create(config.model))
    # the configurations leave out the gains of normed queries and keys
    assert count - 2 * decoder.depth * decoder.width == scale.parameters
    assert 6 * scale.parameters * tokens == pytest.approx(scale.flop, rel=0.04)
    assert decoder.context == 2048


def test_dataset_decomposition():
    config = dataset_decomposition()
    assert config.tokens_per_step == 524_288
    assert (config.curriculum, config.cycles) == ("grow-p2", 8)
    assert (config.train.lr, config.train.min_lr) == (3e-3, 3e-5)
    assert config.train.steps == 54_924
    decoder = models.config(config.model, **config.changes).decoder
    assert (decoder.context, decoder.rope_base) == (8192, 1e5)
    study = dataset_decomposition("openlm-160m", 2**37)
    assert study.train.steps == 2**18


def test_small_runs():
    config = nano(tokens=2_000_000)
    assert (config.train.steps, config.train.warmup_steps) == (122, 12)
    assert set(LM_PRESETS) >= {"openlm-nano", "llama-nano", "dclm-1b-1x"}
    assert lm_preset("llama-nano").model == "llama-nano"
    for name in LM_PRESETS:
        lm_preset(name)
    with pytest.raises(ConfigError, match="fewer than two steps"):
        nano(tokens=20_000)
    with pytest.raises(ConfigError, match="preset: 'dclm-2b-1x' is not one of"):
        lm_preset("dclm-2b-1x")


def test_known_costs_of_one_billion_parameters():
    config = models.config("openlm-1b").decoder
    products = training_flop(config, 0)
    assert products == pytest.approx(8.02e9, rel=1e-3)
    assert training_flop(config, 8192) - products == pytest.approx(2.42e9, rel=2e-3)
    assert training_flop(config, 8192) == pytest.approx(10.43e9, rel=1e-3)
    assert training_flop(config, 2037) - products == pytest.approx(0.60e9, rel=2e-3)
    assert training_flop(config, 2037) == pytest.approx(8.62e9, rel=1e-3)
    assert 1 - training_flop(config, 2037) / training_flop(config, 8192) == pytest.approx(
        0.17, abs=0.005
    )
    assert training_flop(config, 8192, causal=False) - products == pytest.approx(4.83e9, rel=2e-3)


@pytest.mark.parametrize("name", ["openlm-160m", "openlm-nano", "llama-nano"])
def test_products_are_all_but_tables_and_gains(name):
    with torch.device("meta"):
        model = models.create(name)
    found = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "tokens" not in n)
    assert matmul_parameters(model.config.decoder) == found
