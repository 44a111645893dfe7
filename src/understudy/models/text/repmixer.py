"""Text-RepMixer: the RepMixer block on a sequence (arXiv 2311.17049, sec. 4)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.image.repmixer import RepMixerBlock


class TextRepMixer(nn.Module):
    """RepMixer and convolutional feed-forward with (1, k) kernels on [batch, width, 1, length].

    Its mixing has no 1x1 branch: only conv-BN and the BN identity.

    Args:
        width: channels.
        ffn_ratio: feed-forward width over `width`.
        kernel: positions that the depthwise convolutions see.
        layer_scale: starting value of the layer scales.
        drop_path: probability of dropping the feed-forward.
    """

    def __init__(
        self,
        width: int,
        ffn_ratio: float = 4.0,
        kernel: int = 11,
        *,
        layer_scale: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.block = RepMixerBlock(
            width,
            ffn_ratio,
            mixer_kernel=(1, kernel),
            ffn_kernel=(1, kernel),
            scale_branch=False,
            layer_scale=layer_scale,
            drop_path=drop_path,
        )

    def forward(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        """Return the block's output."""
        return self.block(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
