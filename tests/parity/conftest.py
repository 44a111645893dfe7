"""Comparison with peers: timm and OpenCLIP, in an environment of their own.

Both import torchvision, whose PyPI build does not load on a CPU-only torch until two of its
operators are declared. Declaring them must come before anything imports it.
"""

import torch

try:
    torch.ops.torchvision.nms  # raises unless torchvision has loaded
except AttributeError:
    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

torch.set_num_threads(1)
