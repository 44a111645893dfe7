"""The sizes of the MCi family: released ones, a baseline, and nano sizes for a processor.

Counts are of the tower without a head unless said; "folded" is the published re-parameterisation
(`"branches"`).
"""

from __future__ import annotations

from typing import Any

from understudy.models.image.mci import MciConfig

FIVE_STAGES: dict[str, Any] = {
    "mixers": ("repmixer", "repmixer", "repmixer", "attention", "attention"),
    "ffn_ratio": 4.0,
    "se_downsample": (False,) * 5,
    "positions": (False, False, False, True, True),
    "attention_norm": "layer",
    "stem_scale_branch": False,
}
"""What the five-stage members share (arXiv 2508.20691, table of towers)."""

MCI0 = MciConfig()
MCI1 = MciConfig(blocks=(4, 12, 20, 4))
MCI2 = MciConfig(channels=(80, 160, 320, 640), blocks=(4, 12, 24, 4))
"""arXiv 2311.17049. With a head of 512: 11,406,464, 21,541,120 and 35,814,720 parameters."""

MCI3 = MciConfig(channels=(96, 192, 384, 768, 1536), blocks=(2, 12, 24, 4, 2), **FIVE_STAGES)
"""With a head of 768: 125,234,880 parameters, 125,073,504 folded (arXiv 2508.20691); the same
network is FastViTHD of arXiv 2412.13303, 122,714,208 folded without a head."""
MCI4 = MciConfig(channels=(128, 256, 512, 1024, 2048), blocks=(2, 12, 24, 4, 4), **FIVE_STAGES)
"""With a head of 768: 321,784,064 parameters, 321,568,896 folded."""

NAIVE = MciConfig(channels=(128, 256, 512, 1024), blocks=(2, 12, 16, 6))
"""The "naive scaling" baseline of arXiv 2412.13303: four stages, stride 32, squeeze-excite in the
last two down-samplers as in MCi0-2. 96,868,992 parameters folded: not the 125 M of that paper's
caption."""

MCI_NANO = MciConfig(channels=(8, 16, 32, 64), blocks=(1, 1, 2, 1), head_dim=16, image_size=48)

MCI_NANO5 = MciConfig(channels=(12, 24, 48, 96, 192), blocks=(1, 6, 12, 2, 1), **FIVE_STAGES)
"""MCi3 with an eighth of the widths and half of the blocks: 1,104,600 parameters, 1,091,016
folded."""
MCI_NANO4 = MciConfig(channels=(20, 40, 80, 160), blocks=(2, 6, 9, 2))
"""MCi2 with a quarter of the widths and half of the blocks, three fewer in stage 3, so that it has
the parameters of `MCI_NANO5` within 0.5 %: 1,110,284, folded 1,095,544."""
NAIVE_NANO = MciConfig(channels=(16, 32, 64, 128), blocks=(1, 6, 10, 4))
"""`NAIVE` with an eighth of the widths and about half of the blocks, so that it has the parameters
of `MCI_NANO5` within 0.5 %: 1,100,144, folded 1,087,920."""
