"""The alignment step and early stopping: what is refused, what learns, what is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.data.features import FeatureBatches, Side
from understudy.data.sampler_distinct import DistinctSampler
from understudy.data.samplers import ShuffledSampler
from understudy.models.io import weights_hash
from understudy.models.multimodal.aligner import Aligner, AlignerConfig, Modality
from understudy.models.multimodal.heads import IDENTITY, HeadConfig
from understudy.models.preprocess import Preprocess
from understudy.objectives.alignment import recall_at
from understudy.train import checkpoint
from understudy.train.align import AlignStep, fit_aligner
from understudy.train.config import TrainConfig
from understudy.train.pretext import PretextBatches, PretextStep


def world(count=64, seed=0):
    """Two views of one latent: what can be aligned."""
    draw = np.random.default_rng(seed)
    latent = draw.standard_normal((count, 4))
    x = latent @ draw.standard_normal((4, 8))
    y = np.tanh(latent @ draw.standard_normal((4, 6)))
    rows = np.arange(count)
    return {
        "image": Side(rows=rows, values=x.astype(np.float32), encoder="eye"),
        "text": Side(rows=rows, values=y.astype(np.float32), encoder="ear"),
    }


def make(dropout=0.0):
    head = HeadConfig(depth=3, hidden=16, dropout=dropout)
    sides = (
        Modality(name="image", encoder="eye", in_dim=8, head=IDENTITY),
        Modality(name="text", encoder="ear", in_dim=6, head=head),
    )
    return Aligner(AlignerConfig(dim=8, modalities=sides), seed=0)


CONFIG = TrainConfig(steps=120, batch_size=32, lr=1e-2, device="cpu", log_every=20)


def recall(model, sides):
    model.eval()
    with torch.no_grad():
        out = model({k: torch.from_numpy(s.values) for k, s in sides.items()})
    return float(recall_at(out["image_features"], out["text_features"]))


def test_heads_learn_and_the_cache_stays_as_it_was(tmp_path):
    sides = world()
    before = {k: s.values.copy() for k, s in sides.items()}
    model = make()
    start = recall(model, sides)
    batches = FeatureBatches(sides, ShuffledSampler(64, 32, 0))
    done = fit_aligner(model, AlignStep(), batches, CONFIG, tmp_path)
    assert recall(model, sides) > max(0.6, start + 0.4)
    assert all((before[k] == s.values).all() for k, s in sides.items())
    assert done.trainable == sum(p.numel() for p in model.parameters())
    assert not model.training


def test_same_seed_gives_the_same_weights(tmp_path):
    found = []
    for i in range(2):
        model = make(dropout=0.2)
        batches = FeatureBatches(world(), ShuffledSampler(64, 32, 0))
        fit_aligner(model, AlignStep(), batches, CONFIG, tmp_path / str(i))
        found.append(weights_hash(model))
    assert found[0] == found[1]


def test_early_stopping_keeps_the_best_weights(tmp_path):
    scores = iter([0.2, 0.6, 0.5, 0.4, 0.3, 0.9])
    kept = {}

    def evaluate(model, step):
        kept[step] = weights_hash(model)
        return {"recall@1": next(scores)}

    model = make()
    batches = FeatureBatches(world(), ShuffledSampler(64, 32, 0))
    config = replace(CONFIG, eval_every=10)
    done = fit_aligner(model, AlignStep(), batches, config, tmp_path, evaluate=evaluate, patience=3)
    assert done.stopped_early
    assert (done.steps, done.best_step, done.best) == (50, 20, 0.6)
    assert [step for step, _ in done.curve] == [10, 20, 30, 40, 50]
    assert weights_hash(model) == kept[20]
    assert checkpoint.steps(tmp_path / "checkpoints") == [50]
    assert read_json(tmp_path / "record.json")["steps"] == 50


def test_averaged_weights_do_not_use_up_patience(tmp_path):
    """An evaluation asks twice where weights are averaged; only the first counts."""
    scores = iter([0.2, 0.1, 0.6, 0.1, 0.5, 0.1, 0.4, 0.1, 0.3, 0.1])
    config = replace(CONFIG, eval_every=10, ema_decay=0.9)
    batches = FeatureBatches(world(), ShuffledSampler(64, 32, 0))

    def evaluate(model, step):
        return {"recall@1": next(scores)}

    done = fit_aligner(
        make(), AlignStep(), batches, config, tmp_path, evaluate=evaluate, patience=3
    )
    assert (done.steps, done.best_step, done.best) == (50, 20, 0.6)
    assert [found["recall@1"] for _, found in done.curve] == [0.2, 0.6, 0.5, 0.4, 0.3]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    sides = world()
    config = replace(CONFIG, steps=60, eval_every=10, checkpoint_every=20)
    batches = FeatureBatches(sides, ShuffledSampler(64, 32, 0))
    dies = {"at": 50}

    def evaluate(model, step):
        if step == dies["at"]:
            raise KeyboardInterrupt
        # the best comes early: patience must survive the kill
        return {"recall@1": 0.9 - abs(step - 20) / 100}

    def go(folder):
        model = make(dropout=0.2)
        options = {"evaluate": evaluate, "patience": 4, "resume": True}
        return model, fit_aligner(model, AlignStep(), batches, config, folder, **options)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "killed")
    dies["at"] = -1
    again, resumed = go(tmp_path / "killed")
    whole, straight = go(tmp_path / "straight")
    assert resumed.curve == straight.curve
    assert (resumed.steps, resumed.best_step) == (straight.steps, straight.best_step) == (60, 20)
    assert weights_hash(again) == weights_hash(whole)
    # and a finished one is taken as it is
    model, taken = go(tmp_path / "straight")
    assert (taken.best, taken.curve) == (straight.best, straight.curve)
    assert weights_hash(model) == weights_hash(whole)


def test_temperature_is_clamped_while_training(tmp_path):
    model = make()
    with torch.no_grad():
        model.logit_scale.fill_(4.59)
    config = TrainConfig(steps=20, batch_size=32, lr=0.5, device="cpu", weight_decay=0.0)
    fit_aligner(
        model, AlignStep(), FeatureBatches(world(), ShuffledSampler(64, 32, 0)), config, tmp_path
    )
    assert float(model.scale().detach()) <= 100.0
    assert float(model.logit_scale.detach()) <= np.log(100.0)


def test_distinct_batches_pass_where_repeats_are_refused():
    sides = world()
    numbers = np.arange(64) // 2
    groups = dict(enumerate(numbers.tolist()))
    step = AlignStep(duplicates="refuse")
    batches = list(FeatureBatches(sides, DistinctSampler(64, numbers, 32, 0), groups)(0, 4))
    assert len(batches) == 4
    for batch in batches:
        step.check(batch)
        assert len(batch["groups"].unique()) == 32
    for batch in FeatureBatches(sides, ShuffledSampler(64, 64, 0), groups)(0, 2):
        with pytest.raises(DataError, match="has the caption of another pair in its batch"):
            step.check(batch)


def test_pretext_heads_share_the_loss_and_leave_out_unknown_labels():
    images = np.random.default_rng(0).integers(0, 255, (10, 4, 4, 3), dtype=np.uint8)
    side = np.array([[i % 2] for i in range(10)])
    side[3:] = -1
    batch = next(iter(PretextBatches(images, side, Preprocess(size=4), 8, 1)(5, 1)))
    logits = torch.randn(8, 6)
    got = PretextStep(heads=(4, 2))(lambda _: {"logits": logits}, batch)
    turns, known = batch["labels"].T
    expected = torch.nn.functional.cross_entropy(logits[:, :4], turns)
    if (known >= 0).any():
        mine = known >= 0
        expected += torch.nn.functional.cross_entropy(logits[mine, 4:], known[mine])
    assert float(got["loss"]) == pytest.approx(float(expected), rel=1e-5)
    for row, turn, shown in zip(batch["rows"], turns, batch["images"], strict=True):
        want = np.rot90(images[int(row)], int(turn))
        assert np.allclose(shown.permute(1, 2, 0).numpy() * 255, want, atol=0.5)


def test_paraphrases_of_one_picture_come_together():
    from understudy.models.text.ngrams import NgramConfig, NgramTokenizer, NgramTower
    from understudy.train.paraphrase import ParaphraseBatches, ParaphraseStep

    words = ("one", "two", "three", "four", "five", "six")
    groups = [[f"{w} {a}" for a in ("ink", "oil", "on paper")] for w in words] + [["alone"]]
    tokenizer = NgramTokenizer(NgramConfig(buckets=200))
    batches = ParaphraseBatches(groups, tokenizer, 4, 0)
    seen = {}
    batches.tokenize = lambda texts: seen.setdefault(len(seen), list(texts))
    next(iter(batches(3, 1)))
    for first, second in zip(seen[0], seen[1], strict=True):
        assert first != second
        assert first.split()[0] == second.split()[0]
    assert len({text.split()[0] for text in seen[0]}) == 4
    batches.tokenize = tokenizer
    batch = next(iter(batches(0, 1)))
    tower = NgramTower(NgramConfig(buckets=200), 16)
    loss = ParaphraseStep()(tower, batch)["loss"]
    loss.backward()
    assert float(loss.detach()) > 0
    assert tower.table.grad is not None
    with pytest.raises(DataError, match="6 pictures have two captions, a batch needs 7"):
        ParaphraseBatches(groups, tokenizer, 7)


def batch_of(**changes):
    sides = world(8)
    batch = FeatureBatches(sides, ShuffledSampler(8, 8, 0)).gather(np.arange(8) + 0)
    return {**batch, **changes}


def test_bad_input_batch_of_one():
    batch = FeatureBatches(world(8), ShuffledSampler(8, 8, 0)).gather(np.array([3]))
    with pytest.raises(DataError, match="a batch of 1 has a loss of 0"):
        AlignStep().check(batch)


def test_bad_input_nan_features():
    batch = batch_of()
    batch["features"]["text"][5, 2] = float("nan")
    with pytest.raises(DataError, match="text features: row 5 holds NaN or infinity"):
        AlignStep().check(batch)


def test_bad_input_zero_vector():
    batch = batch_of()
    batch["features"]["image"][2] = 0
    with pytest.raises(DataError, match="image features: row 2 has length 0"):
        AlignStep().check(batch)
    AlignStep().check({**batch, "present": {"image": torch.arange(8) != 2}})


def test_bad_input_all_padding():
    mask = torch.ones(8, 2, dtype=torch.bool)
    mask[6] = False
    batch = batch_of(masks={"text": mask})
    batch["features"]["text"] = torch.randn(8, 2, 6)
    with pytest.raises(DataError, match="text features: row 6 is all padding"):
        AlignStep().check(batch)


def test_bad_input_duplicate_captions():
    groups = torch.tensor([0, 1, 2, 3, 4, 2, 5, 6])
    batch = batch_of(groups=groups)
    message = r"row 2 has the caption of another pair.*DistinctSampler, or set .*'positives'"
    with pytest.raises(DataError, match=message):
        AlignStep(duplicates="refuse").check(batch)
    AlignStep(duplicates="positives").check(batch)
    positives = AlignStep(duplicates="positives")(make(), batch)["loss"]
    negatives = AlignStep(duplicates="negatives")(make(), batch)["loss"]
    assert float(positives.detach()) != pytest.approx(float(negatives.detach()), abs=1e-4)


@pytest.mark.parametrize("duplicates", ["positives", "negatives"])
def test_chunks_of_a_step_change_neither_loss_nor_gradients(duplicates, monkeypatch):
    batch = batch_of(groups=torch.tensor([0, 1, 2, 3, 4, 2, 5, 2]))
    found = []
    for chunk in (0, 3):
        if chunk:  # the whole matrix is never made
            monkeypatch.setattr("understudy.objectives.alignment.affinity", None)
        model = make()
        loss = AlignStep(duplicates=duplicates, chunk=chunk)(model, batch)["loss"]
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for whole, part in zip(*found, strict=True):
        assert torch.allclose(whole, part, atol=1e-6)


def test_bad_input_patience_without_evaluation(tmp_path):
    with pytest.raises(ConfigError, match="early stopping needs held-out pairs"):
        fit_aligner(
            make(),
            AlignStep(),
            FeatureBatches(world(), ShuffledSampler(64, 32, 0)),
            CONFIG,
            tmp_path,
            patience=2,
        )
    with pytest.raises(ConfigError, match="'positive' is not one of"):
        AlignStep(duplicates="positive")
    with pytest.raises(ConfigError, match=r"two or more, got \['image'\]"):
        AlignStep(modalities=("image",))
