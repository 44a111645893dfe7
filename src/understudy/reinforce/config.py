"""What a reinforcement asks for: views, teachers, captioners, and how answers are stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from understudy.core.config import check_choice, from_dict, to_dict
from understudy.core.errors import ConfigError
from understudy.data.knowledge import DTYPES
from understudy.data.view_config import ViewConfig

OUTPUTS = ("image", "text", "topk")
"""What a teacher can be asked for: embeddings of views, of texts, and class probabilities."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-+]*")


def _check_int(value: Any, where: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{where}: expected an integer of at least {least}, got {value!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSpec:
    """Name a teacher and say how it is made.

    Attributes:
        name: what its columns are called (letters, digits, `_-+`).
        kind: adapter, a key of `understudy.reinforce.teachers.TEACHERS`.
        model: model name for that library, or a checkpoint tag; see the adapter.
        path: file or folder with its weights.
        logit_scale: factor of its logits in distillation (1 / temperature); None keeps the one that
            the teacher was trained with. Stored as a fact: it changes no stored value.
        outputs: which of `image`, `text`, `topk` to store; empty for what fits the teacher (a
            classifier gives `topk` when the configuration asks for it, everything else embeddings).
        upscale: let it see views enlarged when its input is larger than they are.
        options: the adapter's own options.
    """

    name: str
    kind: str = "understudy"
    model: str = ""
    path: str = ""
    logit_scale: float | None = None
    outputs: tuple[str, ...] = ()
    upscale: bool = False
    options: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"teacher '{self.name}': expected a name of letters, digits, '_', '-' and '+', "
                "without dots, since it begins the names of columns."
            )
        for output in self.outputs:
            check_choice(output, OUTPUTS, f"teacher '{self.name}'.outputs")
        scale = self.logit_scale
        if scale is not None and not 0 < scale < float("inf"):
            raise ConfigError(
                f"teacher '{self.name}'.logit_scale: expected a number above 0, got {scale!r}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforceConfig:
    """Say what to store beside every sample.

    Attributes:
        view_set: name of the set of stored views.
        num_views: stored views a sample; 0 when no teacher looks at images.
        views: what a view is made of.
        teachers: who is asked.
        captioners: who describes the plain images; written to `caption.<name>`.
        captions: captions an image and captioner.
        logit_scales: one scale a teacher, instead of each teacher's own `logit_scale`.
        image_column: payload column of encoded images.
        text_column: payload column of texts; absent in the store means there are none.
        caption_columns: regular expression; captioners whose captions teachers embed. It is matched
            against the whole name after `caption.`; empty for none.
        topk: K, class probabilities kept of each view; 0 for none.
        ensemble: with several classifiers, name under which their averaged probabilities are
            stored; empty stores each classifier's own.
        num_classes: classes in the dataset; 0 takes what the store's metadata say.
        dtype: storage of embeddings: float16, bfloat16 (as bits) or float32.
        empty_captions: what replaces an empty caption: `text`, the sample's own text, or `drop`,
            another caption of the same image. Both are counted.
        caption_retries: how often an empty or repeated caption is drawn again.
        rows: SQL filter; only these rows are reinforced. Empty for all.
        unit_rows: rows that are computed and staged together; what a kill can cost.
        batch_size: views that a teacher sees at once.
        seed: of the views and of the captions.
        overwrite: replace columns that something else wrote.
        threads: threads that decode and augment ahead of the teachers.
        verify_rows: rows that `--verify` asks the teachers about again.
    """

    view_set: str = "main"
    num_views: int = 10
    views: ViewConfig = field(default_factory=ViewConfig)
    teachers: tuple[TeacherSpec, ...] = ()
    captioners: tuple[TeacherSpec, ...] = ()
    captions: int = 5
    logit_scales: tuple[float, ...] = ()
    image_column: str = "image"
    text_column: str = "text"
    caption_columns: str = ".*"
    topk: int = 0
    ensemble: str = "ensemble"
    num_classes: int = 0
    dtype: str = "float16"
    empty_captions: Literal["text", "drop"] = "text"
    caption_retries: int = 2
    rows: str = ""
    unit_rows: int = 512
    batch_size: int = 64
    seed: int = 0
    overwrite: bool = False
    threads: int = 1
    verify_rows: int = 32

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.view_set):
            raise ConfigError(f"view_set: '{self.view_set}' is not a name of letters and digits.")
        if self.ensemble and not _NAME.fullmatch(self.ensemble):
            raise ConfigError(f"ensemble: '{self.ensemble}' is not a name of letters and digits.")
        at_least = {"num_views": 0, "topk": 0, "num_classes": 0, "caption_retries": 0, "seed": 0}
        at_least |= dict.fromkeys(
            ("captions", "unit_rows", "batch_size", "threads", "verify_rows"), 1
        )
        for name, least in at_least.items():
            _check_int(getattr(self, name), name, least)
        check_choice(self.dtype, DTYPES, "dtype")
        check_choice(self.empty_captions, ("text", "drop"), "empty_captions")
        try:
            re.compile(self.caption_columns)
        except re.error as error:
            raise ConfigError(
                f"caption_columns: '{self.caption_columns}' is not a regular expression ({error})."
            ) from None
        self._check_names()
        self._take_scales()

    def _check_names(self) -> None:
        for what, specs in (("teachers", self.teachers), ("captioners", self.captioners)):
            names = [spec.name for spec in specs]
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ConfigError(f"{what}: the name '{twice[0]}' is given twice.")

    def _take_scales(self) -> None:
        scales: Any = self.logit_scales
        if not isinstance(scales, tuple | list):
            raise ConfigError(
                f"logit_scales: expected a list with one number a teacher, got {scales!r}."
            )
        if not scales:
            return
        if len(scales) != len(self.teachers):
            raise ConfigError(
                f"logit_scales: {len(scales)} scales for {len(self.teachers)} teachers; give one "
                "each, in the order of the teachers."
            )
        pairs = zip(self.teachers, scales, strict=True)
        own = tuple(replace(spec, logit_scale=float(scale)) for spec, scale in pairs)
        object.__setattr__(self, "teachers", own)
        object.__setattr__(self, "logit_scales", ())

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-like data."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReinforceConfig:
        """Build a configuration from plain data; keys are checked."""
        return from_dict(cls, data, "reinforce")
