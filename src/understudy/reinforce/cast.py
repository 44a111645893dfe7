"""Who does what: the teachers of a configuration, checked against it and the store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.core.errors import ConfigError, DataError
from understudy.data.knowledge import captions_column
from understudy.reinforce.config import ReinforceConfig, TeacherSpec
from understudy.reinforce.teachers import create
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.teachers.ensemble import Ensemble

if TYPE_CHECKING:
    from understudy.data.store import Store

_MAX_CLASSES = 65_536


@dataclass(frozen=True)
class Cast:
    """Teachers by what they are asked.

    Attributes:
        image: embed stored views.
        text: embed texts and captions.
        classifiers: give top-K probabilities of stored views.
        captioners: write captions of plain images.
    """

    image: list[Teacher]
    text: list[Teacher]
    classifiers: list[Teacher]
    captioners: list[Teacher]

    @property
    def looks(self) -> bool:
        """Whether anybody looks at views."""
        return bool(self.image or self.classifiers)


def gather(config: ReinforceConfig, teachers: Mapping[str, Teacher] | None = None) -> Cast:
    """Make the teachers of a configuration and sort them by what they are asked.

    Args:
        config: who is asked for what.
        teachers: ready-made teachers by name, used instead of making them again. Those that no
            specification names are asked for what fits them.

    Raises:
        ConfigError: a teacher cannot do what it is asked for, or nobody is asked.
    """
    ready = dict(teachers or {})
    for name, teacher in ready.items():
        if teacher.name != name:
            raise ConfigError(
                f"teachers: the one given as '{name}' calls itself '{teacher.name}'; use the name "
                "that its columns will have."
            )
    specs = list(config.teachers)
    named = {spec.name for spec in (*config.teachers, *config.captioners)}
    for name, teacher in ready.items():
        if name not in named and teacher.capabilities != {"caption"}:
            specs.append(TeacherSpec(name=name, kind=teacher.kind or "callable"))
    captioners = [ready.get(s.name) or create(s) for s in config.captioners]
    captioners += [t for n, t in ready.items() if n not in named and t.capabilities == {"caption"}]
    for captioner in captioners:
        captioner._need("caption")
    cast = Cast([], [], [], captioners)
    for spec in specs:
        teacher = ready.get(spec.name) or create(spec)
        teacher.probe_size = config.views.size
        if spec.logit_scale is not None:
            teacher.logit_scale = spec.logit_scale
        outputs = spec.outputs or _fitting(teacher, config)
        if "image" in outputs:
            teacher._need("embed_images")
            cast.image.append(teacher)
        if "text" in outputs:
            teacher._need("embed_texts")
            cast.text.append(teacher)
        if "topk" in outputs:
            teacher._need("classify")
            _check_topk_asked(spec, config)
            cast.classifiers.append(teacher)
        if not spec.upscale:
            _check_size(teacher, config, outputs)
    if not specs and not captioners:
        raise ConfigError("reinforce: name at least one teacher or captioner.")
    if config.ensemble and len(cast.classifiers) > 1:
        members = cast.classifiers
        cast = Cast(cast.image, cast.text, [Ensemble(config.ensemble, members)], captioners)
    if cast.looks and not config.num_views:
        raise ConfigError("num_views: teachers look at views, so at least 1 is needed; got 0.")
    return cast


def _fitting(teacher: Teacher, config: ReinforceConfig) -> tuple[str, ...]:
    """Return what a teacher is asked for when its specification does not say."""
    if config.topk and "classify" in teacher.capabilities:
        return ("topk",)
    found = {"image": "embed_images", "text": "embed_texts"}
    outputs = tuple(o for o, c in found.items() if c in teacher.capabilities)
    if not outputs:
        able = ", ".join(sorted(teacher.capabilities))
        hint = "set topk" if "classify" in teacher.capabilities else "list it under captioners"
        raise ConfigError(f"teacher '{teacher.name}' can only {able}: {hint}, or leave it out.")
    return outputs


def _check_topk_asked(spec: TeacherSpec, config: ReinforceConfig) -> None:
    if not config.topk:
        raise ConfigError(f"teacher '{spec.name}' is asked for topk: set topk, the K to keep.")


def _check_size(teacher: Teacher, config: ReinforceConfig, outputs: Sequence[str]) -> None:
    looks = {"image", "topk"} & set(outputs)
    if not looks or teacher.preprocess is None:
        return
    if teacher.preprocess.size > config.views.size:
        raise ConfigError(
            f"teacher '{teacher.name}' takes {teacher.preprocess.size}-pixel images, views have "
            f"{config.views.size}: set views.size to at least {teacher.preprocess.size}, or the "
            "teacher's upscale to have views enlarged."
        )


def dataset_classes(store: Store, config: ReinforceConfig) -> int:
    """Return the number of classes of a store; 0 when it does not say."""
    if config.num_classes:
        return config.num_classes
    classes = store.meta.get("classes")
    if isinstance(classes, Sequence | Mapping) and not isinstance(classes, str):
        return len(classes)
    return int(store.meta.get("num_classes", 0) or 0)


def check_classes(cast: Cast, store: Store, config: ReinforceConfig) -> None:
    """Compare what the classifiers tell apart with the store's classes and with K.

    Raises:
        ConfigError: other classes than the store's, K too large, or too many classes to store.
    """
    expected = dataset_classes(store, config)
    for teacher in cast.classifiers:
        classes = teacher.num_classes
        if expected and classes != expected:
            raise ConfigError(
                f"teacher '{teacher.name}' tells {classes} classes apart, {store.path} has "
                f"{expected}: use a teacher that was trained on these classes, or set num_classes "
                "if the store's number is wrong."
            )
        if config.topk > classes:
            raise ConfigError(
                f"topk: K is {config.topk}, but teacher '{teacher.name}' has {classes} classes; "
                f"set topk to at most {classes}."
            )
        if classes > _MAX_CLASSES:
            raise ConfigError(
                f"teacher '{teacher.name}' has {classes} classes; class ids are stored in 16 bits, "
                f"so at most {_MAX_CLASSES}."
            )


def caption_names(store: Store, config: ReinforceConfig, cast: Cast) -> list[str]:
    """Return the captioners whose captions are embedded: stored ones and those of this run.

    Raises:
        ConfigError: there are captions, but the expression matches none of them.
    """
    prefix = captions_column("")
    there = [c[len(prefix) :] for c in store.columns if c.startswith(prefix)]
    names = list(dict.fromkeys([*there, *(c.name for c in cast.captioners)]))
    if not (config.caption_columns and cast.text):
        return []
    chosen = [n for n in names if re.fullmatch(config.caption_columns, n)]
    if not chosen and config.caption_columns != ".*":
        raise ConfigError(
            f"caption_columns: '{config.caption_columns}' matches no captioner "
            f"({', '.join(names) or 'there are none'}); it is matched against the whole name after "
            f"'{prefix}'."
        )
    return chosen


def check_payload(store: Store, config: ReinforceConfig, cast: Cast) -> bool:
    """Check the payload columns; say whether there are texts to embed.

    Raises:
        DataError: teachers look at images and there are none.
    """
    if (cast.looks or cast.captioners) and not store.has(config.image_column):
        raise DataError(
            f"{store.path} has no column '{config.image_column}' of images; set image_column "
            f"(columns: {', '.join(store.columns)})."
        )
    return bool(cast.text) and store.has(config.text_column)
