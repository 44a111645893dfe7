"""What the released checkpoints expect of their input, so that a wrong one is noticed.

Facts from the model cards and preprocessing tables that OpenCLIP and timm publish for them: the
MobileCLIP S and B models and MobileCLIP2 S0, S2 and B take [0, 1] pixels as they are (mean 0,
std 1), and so does FastVLM's tower; MobileCLIP2 S3, S4 and L take CLIP's channel statistics.
"""

from __future__ import annotations

from understudy.core.errors import ModelError
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CLIP_STATISTICS = (CLIP_MEAN, CLIP_STD)

FAMILIES = {
    "mobileclip-s0": PLAIN,
    "mobileclip-s1": PLAIN,
    "mobileclip-s2": PLAIN,
    "mobileclip-b": PLAIN,
    "mobileclip2-s0": PLAIN,
    "mobileclip2-s2": PLAIN,
    "mobileclip2-b": PLAIN,
    "mobileclip2-s3": CLIP_STATISTICS,
    "mobileclip2-s4": CLIP_STATISTICS,
    "mobileclip2-l": CLIP_STATISTICS,
    "mci0": PLAIN,
    "mci1": PLAIN,
    "mci2": PLAIN,
    "mci3": CLIP_STATISTICS,
    "mci4": CLIP_STATISTICS,
    "fastvithd": PLAIN,
}


def check_family(weights: str, preprocess: Preprocess) -> None:
    """Raise `ModelError` if released weights would get images normalised in another way.

    Args:
        weights: name of the released checkpoint; an unknown name passes.
        preprocess: the normalisation about to be used.
    """
    expected = FAMILIES.get(weights)
    if expected is None:
        return
    given = (tuple(preprocess.mean), tuple(preprocess.std))
    for name, want, got in zip(("mean", "std"), expected, given, strict=True):
        if any(abs(w - g) > 1e-3 for w, g in zip(want, got, strict=True)):
            raise ModelError(
                f"preprocess.{name}: {weights} was trained with {list(want)}, got {list(got)}; "
                "use the checkpoint's own normalisation."
            )
