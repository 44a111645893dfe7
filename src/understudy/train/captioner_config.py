"""What a captioner learns from, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from understudy.core.errors import ConfigError
from understudy.objectives.captioning import CAPTIONING, CONTRASTIVE
from understudy.train.config import TrainConfig
from understudy.train.student_base import StudentBase


def _small_run() -> TrainConfig:
    return TrainConfig(
        steps=1500, batch_size=64, lr=2e-3, warmup_steps=100, weight_decay=0.1, clip_norm=1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionerConfig(StudentBase):
    """Describe a captioner and what it learns from; `StudentBase` has the rest.

    Train it on many pairs of unreliable texts first; then fine-tune its run (`model`) on few pairs
    of good ones, with the same loss: without that captions are of the kind that the web has, and
    retrieval suffers (arXiv 2508.20691).

    Attributes:
        tokenizer: `"own"` trains one on the texts; a path reads CLIP's vocabulary; `"auto"` is
            `"own"` for models that bring none. Weights bring theirs.
        vocab_size: ids of an own tokenizer.
        text_column: payload column of the texts that are learned.
        captioner: learn the stored captions of this captioner instead; a regular expression,
            matched against the whole name.
        pick: how one of a row's stored captions is chosen, see `StudentConfig`.
        contrastive: weight of the CLIP loss.
        captioning: weight of the captioning loss.
    """

    model: str = "coca-nano"
    tokenizer: str = "auto"
    vocab_size: int = 1024
    text_column: str = "text"
    captioner: str = ""
    pick: Literal["random", "epoch"] = "epoch"
    contrastive: float = CONTRASTIVE
    captioning: float = CAPTIONING
    train: TrainConfig = field(default_factory=_small_run)

    def __post_init__(self) -> None:
        if min(self.contrastive, self.captioning) < 0 or not self.captioning:
            raise ConfigError(
                f"contrastive {self.contrastive}, captioning {self.captioning}: expected weights "
                "of at least 0, and above 0 for captioning (a captioner must learn to write)."
            )
        if self.vocab_size < 520:
            raise ConfigError(f"vocab_size: expected at least 520, got {self.vocab_size}.")

    @property
    def synthetic(self) -> bool:
        """Whether stored captions are learned."""
        return bool(self.captioner)

    @property
    def real(self) -> bool:
        """Whether the samples' own texts are learned."""
        return not self.captioner
