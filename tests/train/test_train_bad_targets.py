"""Stored targets that teach nothing or something wrong: found in the batch, named by row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from train_toy import Batches, Toy

from understudy.core.errors import ConfigError, DataError
from understudy.train.classifier_steps import TopKStep
from understudy.train.config import TrainConfig
from understudy.train.loop import fit
from understudy.train.steps import ClipStep


class Targets(Batches):
    """Batches with the two largest of four probabilities; `spoil` changes the third batch."""

    def __init__(self, spoil) -> None:
        super().__init__(8)
        self.spoil = spoil

    def batch(self, number: int):
        batch = super().batch(number)
        logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        values, ids = logits.softmax(-1).topk(2)
        batch |= {"topk_p": values, "topk_id": ids}
        if number == 2:
            self.spoil(batch)
        return batch


def run(spoil, out) -> None:
    config = TrainConfig(steps=4, batch_size=8, device="cpu")
    fit(Toy(), TopKStep(num_classes=4), Targets(spoil), config, out)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("topk_p", 0.0, "row 19 has probabilities of sum 0; the teacher's output .* Reinforce"),
        ("topk_p", float("nan"), "row 19 has probabilities of sum nan; .* Reinforce that row"),
        ("topk_p", -0.5, "row 19 has probabilities of sum -1; .* negative"),
        ("topk_id", 57, "row 19 names class 57, the data set has 4 classes: .* other classes"),
        ("topk_id", -2, "row 19 names class -2, the data set has 4 classes"),
    ],
)
def test_bad_input_probabilities_of_a_row_stop_a_run(tmp_path, key, value, message):
    run(lambda batch: None, tmp_path / "good")
    with pytest.raises(DataError, match=message):
        run(lambda batch: batch[key][3].fill_(value), tmp_path / "bad")


def teachers(**changes):
    unit = [F.normalize(torch.randn(4, d), dim=1) for d in (6, 5)]
    batch = {"rows": torch.arange(40, 44), "teacher_images": unit, "teacher_texts": unit}
    return {**batch, **changes}


def test_bad_input_embeddings_of_a_row_stop_a_run():
    step = ClipStep(lam=0.5, scales=(10.0, 20.0), captions="real", check_every=1)
    step.check(teachers())
    for key in ("teacher_images", "teacher_texts"):
        wrong = teachers()
        wrong[key] = [wrong[key][0], wrong[key][1].clone()]
        wrong[key][1][2] *= 3
        with pytest.raises(DataError, match=rf"{key}\[1\]: row 42 has length 3, .* normalise"):
            step.check(wrong)
        wrong[key][1][2] = float("nan")
        with pytest.raises(DataError, match=rf"{key}\[1\]: row 42 has length nan"):
            step.check(wrong)
    bare = {key: value for key, value in teachers().items() if key != "teacher_images"}
    with pytest.raises(DataError, match="the batch has no 'teacher_images'"):
        step.check(bare)


def test_bad_input_scales_and_lambda():
    with pytest.raises(ConfigError, match="scales: 1 logit scales for 2 teachers; give one per"):
        ClipStep(lam=0.5, scales=(10.0,)).check(teachers())
    with pytest.raises(ConfigError, match=r"scales: got the single number 10.0 for 2 teachers"):
        ClipStep(lam=0.5, scales=10.0).check(teachers())
    for lam in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"lam: expected a number in \[0, 1\], got"):
            ClipStep(lam=lam)
