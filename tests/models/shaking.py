"""Random statistics, gains and layer scales: fresh ones would hide folding mistakes."""

import torch
from torch import nn


def shake(module, seed=0):
    """Randomise in place; return the module in eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                uniform(part.running_mean, -0.3, 0.3)
                uniform(part.running_var, 0.5, 2.0)
            if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
                uniform(part.weight, 0.5, 1.5)
                uniform(part.bias, -0.3, 0.3)
            elif isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                uniform(part.bias, -0.1, 0.1)
        for name, parameter in module.named_parameters():
            if "gamma" in name:
                uniform(parameter, 0.1, 0.5)
    return module.eval()


def relative_error(ours, expected):
    """Return the largest difference over the largest value."""
    return float((ours - expected).abs().max() / expected.abs().max())
