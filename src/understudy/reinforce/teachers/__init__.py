"""Teachers: frozen models that are asked once, one adapter a library, imported when used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.core.lazy import LazyTable

if TYPE_CHECKING:
    from understudy.reinforce.config import TeacherSpec
    from understudy.reinforce.teachers.base import Teacher

_HERE = "understudy.reinforce.teachers"
TEACHERS = LazyTable(
    "kind of teacher",
    {
        "understudy": f"{_HERE}.own:OwnTeacher",
        "openclip": f"{_HERE}.openclip:OpenClipTeacher",
        "timm": f"{_HERE}.timm_model:TimmTeacher",
        "transformers": f"{_HERE}.transformers_model:TransformersTeacher",
        "sentence": f"{_HERE}.sentence:SentenceTeacher",
        "onnx": f"{_HERE}.onnx_model:OnnxTeacher",
        "efficientnet-lite": f"{_HERE}.efficientnet_lite:EfficientNetLiteTeacher",
        "callable": f"{_HERE}.function:FunctionTeacher",
        "aligned": f"{_HERE}.aligned:AlignedTeacher",
    },
)
"""Adapters by kind; each makes a teacher of a `TeacherSpec`."""


def create(spec: TeacherSpec) -> Teacher:
    """Make one teacher.

    Raises:
        ConfigError: no such kind, or an option that it does not have.
        MissingExtraError: the kind's library is missing or does not import.
    """
    return TEACHERS.load(spec.kind).from_spec(spec)


def create_all(specs: Sequence[TeacherSpec]) -> list[Teacher]:
    """Make teachers in the order of their specs."""
    return [create(spec) for spec in specs]
