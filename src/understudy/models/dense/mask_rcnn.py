"""Boxes and masks of objects: torchvision's RPN and RoI heads on our pyramid (arXiv 1703.06870).

torchvision has to be built for the torch that is installed (extra `vision`); where it is not,
making the head says so in one sentence, and everything else of this room works without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.errors import DataError, MissingExtraError
from understudy.core.lazy import require
from understudy.models.dense.fpn import FeaturePyramid

RATIOS = (0.5, 1.0, 2.0)
THRESHOLD = 0.5
"""A pixel belongs to a detected object where its mask is at least this sure."""


def detection_parts() -> Any:
    """Return torchvision's detection package, once its operators are known to work.

    Raises:
        MissingExtraError: torchvision is not installed, or was built for another torch.
    """
    found = require("torchvision.models.detection", "vision", "detection (Mask R-CNN)")
    boxes = require("torchvision.ops.boxes", "vision", "detection (Mask R-CNN)")
    try:
        one = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device="cpu")
        boxes.nms(one, torch.ones(1, device="cpu"), 0.5)
    except (RuntimeError, NotImplementedError) as error:
        raise MissingExtraError(
            "detection (Mask R-CNN) needs torchvision's operators, and the installed torchvision "
            f"has none for this torch ({str(error).splitlines()[0]}); install the torchvision "
            "build that matches your torch."
        ) from None
    return found


class MaskRcnn(nn.Module):
    """Losses in training, detections otherwise.

    Args:
        channels: of the maps, finest first.
        strides: of the maps.
        num_classes: classes of objects, the background not among them.
        width: channels of the pyramid (published: 256).
        anchor_scale: side of an anchor over its level's stride (published: 8).
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        width: int,
        anchor_scale: float,
    ) -> None:
        super().__init__()
        tv = detection_parts()
        self.pyramid = FeaturePyramid(channels, width)
        names = [str(i) for i in range(len(channels))]
        sides = [anchor_scale * s for s in (*strides, 2 * strides[-1])]
        anchors = tv.rpn.AnchorGenerator(
            tuple((side,) for side in sides), (RATIOS,) * (len(channels) + 1)
        )
        rpn_head = tv.rpn.RPNHead(width, len(RATIOS))
        self.rpn = tv.rpn.RegionProposalNetwork(
            anchors,
            rpn_head,
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )
        ops = require("torchvision.ops", "vision", "detection (Mask R-CNN)")
        self.roi_heads = tv.roi_heads.RoIHeads(
            ops.MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
            tv.faster_rcnn.TwoMLPHead(width * 49, 1024),
            tv.faster_rcnn.FastRCNNPredictor(1024, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=512,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
            mask_roi_pool=ops.MultiScaleRoIAlign(names, output_size=14, sampling_ratio=2),
            mask_head=tv.mask_rcnn.MaskRCNNHeads(width, (width,) * 4, 1),
            mask_predictor=tv.mask_rcnn.MaskRCNNPredictor(width, width, num_classes + 1),
        )
        self._images = tv.image_list.ImageList
        self._paste = tv.roi_heads.paste_masks_in_image

    def forward(
        self,
        maps: Sequence[Tensor],
        images: Tensor,
        size: tuple[int, int],
        targets: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> dict[str, Any]:
        """Return `losses` by name in training, else `detections` by image.

        Args:
            maps: of the tower, finest first.
            images: padded input [B, 3, H, W], for its shape.
            size: (height, width) before padding.
            targets: `boxes`, `labels` (from 0) and `instances`, each a list of one tensor an image.

        Raises:
            DataError: training without targets.
        """
        found = self.pyramid(maps)
        features = OrderedDict((str(i), m) for i, m in enumerate(found))
        pooled = F.max_pool2d(found[-1], 1, 2)
        sizes = [size] * len(images)
        wanted = None
        if self.training:
            if targets is None:
                raise DataError("detection: training needs boxes, labels and instances.")
            wanted = _targets(targets)
        proposals, losses = self.rpn(
            self._images(images, sizes), OrderedDict([*features.items(), ("pool", pooled)]), wanted
        )
        detections, more = self.roi_heads(features, proposals, sizes, wanted)
        if self.training:
            return {"losses": {**losses, **more}}
        return {"detections": [self._detection(d, size) for d in detections]}

    def _detection(self, found: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        masks = self._paste(found["masks"], found["boxes"], size)
        return {
            "boxes": found["boxes"],
            "labels": found["labels"] - 1,
            "scores": found["scores"],
            "instances": masks[:, 0] >= THRESHOLD,
        }


def _targets(targets: Mapping[str, Sequence[Tensor]]) -> list[dict[str, Tensor]]:
    parts = zip(targets["boxes"], targets["labels"], targets["instances"], strict=True)
    return [
        # to torchvision class 0 is the background
        {"boxes": boxes, "labels": labels + 1, "masks": instances.to(torch.uint8)}
        for boxes, labels, instances in parts
    ]
