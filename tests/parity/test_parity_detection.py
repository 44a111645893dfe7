"""Mask R-CNN on our pyramid: torchvision's heads learn, and find what they learned.

torchvision's operators are not there on a CPU-only torch; plain forms stand in for them here (its
own Python form of RoIAlign is exact as well, but takes minutes).
"""

import numpy as np
import pytest
import torch
from torchvision.models.detection import roi_heads
from torchvision.ops import boxes as tv_boxes
from torchvision.ops import poolers

from understudy import models
from understudy.data import scenes
from understudy.data.dense import MaskSpec
from understudy.data.dense_augment import DenseAugment
from understudy.data.scenes.words import DIGIT_WORDS
from understudy.evaluate.dense import evaluate_dense
from understudy.models.dense.config import HeadConfig
from understudy.models.dense.io import load_dense
from understudy.models.dense.model import dense_model
from understudy.train.config import TrainConfig
from understudy.train.dense import FineTuneConfig, fine_tune

HEAD = HeadConfig(task="det", kind="mask-rcnn", classes=DIGIT_WORDS, width=16, anchor_scale=4.0)
MASKS = MaskSpec(objects="digits", classes=("background", *DIGIT_WORDS))


def plain_nms(boxes, scores, iou_threshold):
    order = scores.argsort(descending=True)
    near = (tv_boxes.box_iou(boxes[order], boxes[order]) > iou_threshold).numpy()
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~near[i, i + 1 :]
    return order[torch.from_numpy(alive)]


def plain_roi_align(
    features, boxes, output_size, spatial_scale=1.0, sampling_ratio=2, aligned=False
):
    """Average 2 x 2 bilinear samples a bin, as RoIAlign does inside of the map."""
    if isinstance(boxes, list | tuple):
        numbers = [torch.full((len(b), 1), float(i)) for i, b in enumerate(boxes)]
        boxes = torch.cat([torch.cat(pair, 1) for pair in zip(numbers, boxes, strict=True)])
    high, wide = (output_size,) * 2 if isinstance(output_size, int) else output_size
    count, (height, width) = 2, features.shape[-2:]
    out = features.new_zeros(len(boxes), features.shape[1], high, wide)
    steps = [(torch.arange(n * count) + 0.5) / (n * count) for n in (high, wide)]
    for i in range(len(features)):
        rows = (boxes[:, 0] == i).nonzero()[:, 0]
        if not len(rows):
            continue
        left, top, right, bottom = (boxes[rows, 1:] * spatial_scale).unbind(1)
        x = left[:, None] + (right - left).clamp(min=1)[:, None] * steps[1]
        y = top[:, None] + (bottom - top).clamp(min=1)[:, None] * steps[0]
        grid = torch.stack(
            [
                (2 * x + 1)[:, None].expand(-1, y.shape[1], -1) / width - 1,
                (2 * y + 1)[:, :, None].expand(-1, -1, x.shape[1]) / height - 1,
            ],
            -1,
        ).flatten(0, 1)[None]
        found = torch.nn.functional.grid_sample(
            features[i : i + 1], grid, padding_mode="border", align_corners=False
        )[0]
        found = found.unflatten(1, (len(rows), high * count)).transpose(0, 1)
        out[rows] = torch.nn.functional.avg_pool2d(found, count)
    return out


@pytest.fixture(autouse=True)
def _operators(monkeypatch):
    monkeypatch.setattr(tv_boxes, "nms", plain_nms)
    monkeypatch.setattr(poolers, "roi_align", plain_roi_align)
    monkeypatch.setattr(roi_heads, "roi_align", plain_roi_align)


def test_losses_then_detections_of_the_inputs_size():
    model = dense_model(models.create("mci-nano", seed=0), HEAD).train()
    targets = {
        "boxes": [torch.tensor([[4.0, 4, 20, 24]]), torch.zeros(0, 4)],
        "labels": [torch.tensor([3]), torch.zeros(0, dtype=torch.int64)],
        "instances": [torch.ones(1, 40, 50, dtype=torch.bool), torch.zeros(0, 40, 50).bool()],
    }
    losses = model(torch.randn(2, 3, 40, 50), targets)["losses"]
    assert set(losses) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask",
    }  # fmt: skip
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.tower.stages.parameters())
    model.eval()
    with torch.no_grad():
        found = model(torch.randn(2, 3, 40, 50))["detections"]
    assert len(found) == 2
    for one in found:
        assert one["instances"].shape[1:] == (40, 50)
        assert len(one["boxes"]) == len(one["labels"]) == len(one["scores"]) <= 100


@pytest.mark.timeout(900)
def test_a_detector_learns_a_few_scenes_by_heart(tmp_path):
    store = scenes.to_store(
        "photo-scenes", tmp_path / "s", train=4, teacher=0, test=0, seed=3, size=64,
        objects=(1, 1), num_captions=1,
    )  # fmt: skip
    config = FineTuneConfig(
        head=HEAD,
        masks=MASKS,
        size=64,
        augment=DenseAugment(flip=0.0),
        train=TrainConfig(steps=100, batch_size=4, lr=3e-3, clip_norm=5.0, device="cpu"),
        workers=0,
    )
    source = models.create("mci-nano", seed=0, **{"image.layer_scale": 0.5})
    run = fine_tune(store, source, config, tmp_path / "run", np.arange(4))
    scores = evaluate_dense(run.model, store, masks=MASKS)
    assert scores["box_ap50"] > 0.5
    assert set(scores) == {f"{k}_{m}" for k in ("box", "mask") for m in ("ap", "ap50", "ap75")}
    again = load_dense(tmp_path / "run" / "dense.safetensors")
    assert evaluate_dense(again, store, masks=MASKS) == scores
