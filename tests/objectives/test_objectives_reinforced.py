from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.checks import unit_rows
from understudy.objectives.contrastive import clip_loss, sigmoid_loss
from understudy.objectives.distill import affinity_distill, sigmoid_distill
from understudy.objectives.reinforced import (
    reinforced,
    reinforced_clip,
    reinforced_sigmoid,
    select_captions,
)

B, D = 6, 5
SCALES = (40.0, 70.0)


def unit(seed: int, rows: int = B, dim: int = D) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=-1)


class TinyClip(nn.Module):
    """A linear CLIP that counts how often its text tower runs, and on how many rows."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image = nn.Parameter(torch.randn(4, D, generator=generator))
        self.text = nn.Parameter(torch.randn(9, D, generator=generator))
        self.text_calls: list[int] = []

    def forward(self, images=None, texts=None, syn_texts=None):
        both = [t for t in (texts, syn_texts) if t is not None]
        tokens = torch.cat(both)
        self.text_calls.append(len(tokens))
        features = F.normalize(self.text[tokens].mean(dim=1), dim=-1).split([len(t) for t in both])
        names = [
            n
            for n, t in (("text_features", texts), ("syn_text_features", syn_texts))
            if t is not None
        ]
        return {
            "image_features": F.normalize(images @ self.image, dim=-1),
            "logit_scale": torch.tensor(11.0),
            **dict(zip(names, features, strict=True)),
        }


def batch(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "images": torch.randn(B, 4, generator=generator),
        "texts": torch.randint(0, 9, (B, 3), generator=generator),
        "syn_texts": torch.randint(0, 9, (B, 3), generator=generator),
        "teacher_images": [unit(1), unit(2, dim=8)],
        "teacher_texts": [unit(3), unit(4, dim=8)],
        "teacher_syn_texts": [unit(5), unit(6, dim=8)],
    }


def outputs() -> dict:
    return {
        "image_features": unit(7),
        "text_features": unit(8),
        "syn_text_features": unit(9),
        "logit_scale": torch.tensor(11.0),
        "logit_bias": torch.tensor(-2.0),
    }


def test_lambda_zero_without_synthetic_captions_is_the_clip_loss():
    out = outputs()
    del out["syn_text_features"]
    found = reinforced(out, {}, lam=0.0)
    torch.testing.assert_close(found["loss"], clip_loss(unit(7), unit(8), 11.0))
    assert set(found) == {"loss", "clip_real"}


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_total_is_the_weighted_sum_of_its_terms(lam, weights):
    out, data = outputs(), batch()
    expected = 0.0
    for key, teacher, weight in zip(
        ("text_features", "syn_text_features"),
        ("teacher_texts", "teacher_syn_texts"),
        weights,
        strict=True,
    ):
        u, v = out["image_features"], out[key]
        distill = affinity_distill(u, v, 11.0, data["teacher_images"], data[teacher], SCALES)
        expected += weight * ((1 - lam) * clip_loss(u, v, 11.0) + lam * distill)
    found = reinforced(out, data, lam=lam, scales=SCALES, weights=weights)
    torch.testing.assert_close(found["loss"], expected)
    assert ("clip_syn" in found) == (lam < 1)
    assert ("distill_real" in found) == (lam > 0 and weights[0] > 0)


def test_sigmoid_total_is_the_sum_of_its_terms():
    out, data = outputs(), batch()
    expected = 0.0
    for key, teacher in (
        ("text_features", "teacher_texts"),
        ("syn_text_features", "teacher_syn_texts"),
    ):
        u, v = out["image_features"], out[key]
        expected += 0.25 * sigmoid_loss(u, v, 11.0, -2.0) + 0.75 * sigmoid_distill(
            u, v, 11.0, -2.0, data["teacher_images"], data[teacher], SCALES, (-1.0, -2.0)
        )
    found = reinforced_sigmoid(out, data, lam=0.75, scales=SCALES, biases=(-1.0, -2.0))
    torch.testing.assert_close(found["loss"], expected)


def test_text_tower_runs_once_on_real_and_synthetic_rows():
    model = TinyClip()
    reinforced_clip(model, batch(), lam=0.75, scales=SCALES)
    assert model.text_calls == [2 * B]
    reinforced_clip(model, batch(), lam=0.75, scales=SCALES, captions="mix")
    assert model.text_calls == [2 * B, B]


def test_caption_choices():
    data = batch()
    real = select_captions(data, "real")
    assert "syn_texts" not in real
    assert "teacher_syn_texts" not in real
    syn = select_captions(data, "syn")
    assert "texts" not in syn
    assert set(select_captions(data, "both")) == set(data)
    none = select_captions(data, "mix", mix=0.0)
    assert torch.equal(none["texts"], data["texts"])
    every = select_captions(data, "mix", mix=1.0)
    assert torch.equal(every["texts"], data["syn_texts"])
    assert torch.equal(every["teacher_texts"][1], data["teacher_syn_texts"][1])


def test_mixed_captions_bring_their_own_teacher_embeddings_and_depend_on_the_step():
    data = batch()
    draws = []
    for step in range(6):
        mixed = select_captions({**data, "step": step}, "mix", seed=3)
        from_syn = (mixed["teacher_texts"][0] == data["teacher_syn_texts"][0]).all(dim=1)
        rows = torch.where(from_syn[:, None], data["syn_texts"], data["texts"])
        assert torch.equal(mixed["texts"], rows)
        again = select_captions({**data, "step": step}, "mix", seed=3)
        assert torch.equal(again["texts"], mixed["texts"])
        draws.append(tuple(from_syn.tolist()))
    assert len(set(draws)) > 1


def test_clip_arm_with_synthetic_captions_learns_only_from_them():
    model = TinyClip()
    found = reinforced_clip(model, batch(), lam=0.0, captions="syn")
    assert set(found) == {"loss", "clip_syn"}


def test_permuting_the_batch_leaves_loss_and_gradients():
    model, data = TinyClip(), batch()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = {
        k: [m[order] for m in v] if isinstance(v, list) else v[order] for k, v in data.items()
    }
    grads = []
    for each in (data, shuffled):
        loss = reinforced_clip(model, each, lam=0.75, scales=SCALES)["loss"]
        grads.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan"), "0.5", True])
def test_lambda_outside_its_range_is_refused(lam):
    with pytest.raises(ConfigError, match=r"lam: expected a number in \[0, 1\], got"):
        reinforced(outputs(), batch(), lam=lam, scales=SCALES)


def test_missing_parts_are_named():
    data = batch()
    del data["teacher_syn_texts"]
    with pytest.raises(DataError, match="reinforced: the batch has no 'teacher_syn_texts'"):
        reinforced(outputs(), data, lam=1.0, scales=SCALES)
    with pytest.raises(DataError, match="captions 'both': the batch has no 'syn_texts'"):
        select_captions({"texts": torch.zeros(1, 1)}, "both")
    real_only = {k: v for k, v in outputs().items() if k != "syn_text_features"}
    with pytest.raises(ConfigError, match="no captions to learn from"):
        reinforced(real_only, batch(), lam=0.0, weights=(0.0, 1.0))
    with pytest.raises(ConfigError, match="weights: expected two numbers"):
        reinforced(outputs(), batch(), lam=0.0, weights=(0.0, 0.0))
    with pytest.raises(ConfigError, match="1 logit scales for 2 teachers"):
        reinforced(outputs(), batch(), lam=1.0, scales=(100.0,))
    with pytest.raises(ConfigError, match="captions: 'bth' is not one of both, real, syn, mix"):
        select_captions(batch(), "bth")


def test_unnormalised_embeddings_are_named_by_row():
    features = unit(0).half()
    unit_rows(features.float(), "teacher")
    features[2] *= 3
    with pytest.raises(DataError, match=r"openai\.image: row 42 has length 3.*, expected a unit"):
        unit_rows(features.float(), "openai.image", torch.arange(40, 40 + B))
