"""The transformation between embedding spaces: parameter counts, folding, widths, chains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.embedding.chain import (
    ChainConfig,
    ChainTransform,
    build_map,
    map_config_from_dict,
    map_config_to_dict,
)
from understudy.models.embedding.compatible import (
    CompatibleTransform,
    TransformConfig,
    count_parameters,
)
from understudy.models.embedding.linear import LinearConfig, LinearTransform


def trained(config: TransformConfig, seed: int = 0) -> CompatibleTransform:
    """Return a transformation whose running statistics are not those of a fresh one."""
    torch.manual_seed(seed)
    h = CompatibleTransform(config, seed=seed)
    for _ in range(5):
        h.parts(3 * torch.randn(32, config.old_dim) + 1, 2 * torch.randn(32, config.second_dim))
    with torch.no_grad():
        for norm in (m for m in h.modules() if isinstance(m, torch.nn.BatchNorm1d)):
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    return h.eval()


@pytest.mark.parametrize(
    ("old", "side", "new", "uncertainty", "expected"),
    [
        (128, 128, 128, False, 5_712_000),
        (128, 0, 128, False, 5_712_000),  # without side information the old vector is given twice
        (384, 384, 768, False, 15_025_920),
        (384, 0, 768, True, 15_026_689),
    ],
)
def test_published_parameter_counts(old, side, new, uncertainty, expected):
    config = TransformConfig(old_dim=old, side_dim=side, new_dim=new, uncertainty=uncertainty)
    with torch.device("meta"):
        h = CompatibleTransform(config)
    assert sum(p.numel() for p in h.parameters()) == expected
    assert count_parameters(config) == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 17), st.booleans())
def test_the_formula_counts_what_is_built(old, side, new, inner, uncertainty):
    config = TransformConfig(
        old_dim=old, side_dim=side, new_dim=new, inner=inner, uncertainty=uncertainty
    )
    h = CompatibleTransform(config)
    assert sum(p.numel() for p in h.parameters()) == count_parameters(config)
    matrices = sum(p.numel() for p in h.parameters() if p.ndim == 2)
    assert config.macs == matrices


def test_layers_by_hand():
    """The forward pass, written out with matrices."""
    config = TransformConfig(old_dim=3, side_dim=2, new_dim=4, inner=5, uncertainty=True)
    h = trained(config).double()
    old, side = torch.randn(7, 3).double(), torch.randn(7, 2).double()

    def block(x, name):
        w = h.state_dict()
        x = x @ w[f"{name}.linear.weight"].T
        scale = (w[f"{name}.norm.running_var"] + 1e-5).sqrt()
        x = (x - w[f"{name}.norm.running_mean"]) / scale
        return (x * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]).clamp(min=0)

    both = [block(block(x, f"{p}.0"), f"{p}.1") for x, p in ((old, "p1"), (side, "p2"))]
    x = block(block(torch.cat(both, 1), "mixer.0"), "mixer.1")
    z = x @ h.mixer[2].weight.T + h.mixer[2].bias
    u = z @ h.uncertainty.weight[0] + h.uncertainty.bias
    found = h(old, side)
    torch.testing.assert_close(found[0], z)
    torch.testing.assert_close(found[1], u)


def test_no_side_information_is_the_old_vector_twice():
    without = trained(TransformConfig(old_dim=4, new_dim=3, inner=6))
    twice = CompatibleTransform(TransformConfig(old_dim=4, side_dim=4, new_dim=3, inner=6)).eval()
    twice.load_state_dict(without.state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(without(x), twice(x, x))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([0, 5]))
def test_folding_is_exact_in_eval_mode(seed, uncertainty, side):
    config = TransformConfig(old_dim=6, side_dim=side, new_dim=4, inner=16, uncertainty=uncertainty)
    h = trained(config, seed).double()
    folded = h.fold()
    old, second = torch.randn(9, 6).double(), torch.randn(9, 5).double() if side else None
    for mine, theirs in zip(h.parts(old, second), folded.parts(old, second), strict=True):
        if mine is None:
            assert theirs is None
        else:
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert not list(folded.buffers())  # no normalisation is left
    assert not any(p.requires_grad for p in folded.parameters())


def test_folding_leaves_the_original_alone_and_is_refused_twice():
    h = trained(TransformConfig(old_dim=3, new_dim=2, inner=4))
    before = {k: v.clone() for k, v in h.state_dict().items()}
    folded = h.fold()
    assert all(torch.equal(before[k], v) for k, v in h.state_dict().items())
    with pytest.raises(ModelError, match="folded already"):
        folded.fold()
    with pytest.raises(ModelError, match="cannot be trained"):
        folded.train()
    with pytest.raises(ModelError, match=r"call model\.eval"):
        h.train().fold()


def test_eval_mode_freezes_statistics_but_not_weights():
    h = trained(TransformConfig(old_dim=3, new_dim=2, inner=4))
    statistics = {n: b.clone() for n, b in h.named_buffers()}
    h(torch.randn(8, 3)).square().mean().backward()
    assert all(torch.equal(statistics[n], b) for n, b in h.named_buffers())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in h.mixer[2].parameters())
    assert h.p1[0].norm.weight.grad is not None


def test_the_same_seed_gives_the_same_weights():
    config = TransformConfig(old_dim=3, new_dim=2, inner=4)
    state = torch.get_rng_state()
    one, two = CompatibleTransform(config, seed=3), CompatibleTransform(config, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    other = CompatibleTransform(config, seed=4)
    assert not torch.equal(one.mixer[2].weight, other.mixer[2].weight)


@pytest.mark.parametrize(
    ("config", "old", "side", "words"),
    [
        (TransformConfig(old_dim=3, new_dim=2, inner=4), (5, 4), None, "the map takes 3"),
        (TransformConfig(old_dim=3, side_dim=2, new_dim=2), (5, 3), None, "needs side information"),
        (TransformConfig(old_dim=3, side_dim=2, new_dim=2), (5, 3), (5, 3), "the map takes 2"),
        (LinearConfig(old_dim=3, new_dim=2), (5, 4), None, "the map takes 3"),
        (LinearConfig(old_dim=3, side_dim=2, new_dim=2), (5, 3), None, "got none"),
    ],
)
def test_other_widths_are_refused(config, old, side, words):
    h = build_map(config).eval()
    with pytest.raises(DataError, match=words):
        h.parts(torch.zeros(old), None if side is None else torch.zeros(side))


@pytest.mark.parametrize("change", [{"old_dim": 0}, {"new_dim": 0}, {"inner": 0}, {"side_dim": -1}])
def test_bad_widths_of_a_configuration(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        TransformConfig(**{"old_dim": 3, "new_dim": 2, **change})


def test_linear_map_with_side_information():
    h = LinearTransform(LinearConfig(old_dim=3, side_dim=2, new_dim=4)).double()
    old, side = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    expected = torch.cat([old, side], 1) @ h.linear.weight.T + h.linear.bias
    torch.testing.assert_close(h(old, side), expected)
    with pytest.raises(ConfigError, match="takes no side information"):
        LinearConfig(old_dim=3, side_dim=2, new_dim=4, kind="orthogonal")


def test_a_chain_is_one_map_after_the_other():
    first = trained(
        TransformConfig(old_dim=3, side_dim=2, new_dim=4, inner=5, uncertainty=True), seed=1
    )
    last = trained(TransformConfig(old_dim=4, new_dim=6, inner=5, uncertainty=True), seed=2)
    chain = ChainTransform([first, last]).eval()
    old, side = torch.randn(7, 3), torch.randn(7, 2)
    z1, u1 = first(old, side)
    z2, u2 = last(z1)
    z, u = chain(old, side)
    assert torch.equal(z, z2)
    torch.testing.assert_close(u, (u1.exp() + u2.exp()).log())
    folded = chain.fold().parts(old, side)
    torch.testing.assert_close(folded[0], z, rtol=1e-4, atol=1e-4)
    assert chain.config.macs == first.config.macs + last.config.macs


def test_huge_uncertainties_of_a_chain_stay_finite():
    maps = [trained(TransformConfig(old_dim=2, new_dim=2, inner=3, uncertainty=True))] * 2
    chain = ChainTransform(maps).eval()
    with torch.no_grad():
        maps[0].uncertainty.bias.fill_(1000.0)
        assert torch.isfinite(chain(torch.randn(4, 2))[1]).all()


def test_chains_that_do_not_fit():
    one = TransformConfig(old_dim=3, new_dim=4)
    with pytest.raises(ConfigError, match="gives 4 numbers, the next one takes 5"):
        ChainConfig(steps=(one, TransformConfig(old_dim=5, new_dim=2)))
    with pytest.raises(ConfigError, match="lack"):
        ChainConfig(steps=(one, TransformConfig(old_dim=4, side_dim=2, new_dim=2)))
    with pytest.raises(ConfigError, match="two maps or more"):
        ChainConfig(steps=(one,))


@pytest.mark.parametrize(
    "config",
    [
        TransformConfig(old_dim=3, side_dim=2, new_dim=4, inner=5, uncertainty=True),
        LinearConfig(old_dim=3, new_dim=4, kind="orthogonal"),
        ChainConfig(
            steps=(LinearConfig(old_dim=3, new_dim=4), TransformConfig(old_dim=4, new_dim=2))
        ),
    ],
)
def test_plain_data_brings_a_configuration_back(config):
    data = map_config_to_dict(config)
    assert map_config_from_dict(data) == config
    assert build_map(config).config == config
    with pytest.raises(ConfigError, match="not one of"):
        map_config_from_dict({**data, "map": "other"})
