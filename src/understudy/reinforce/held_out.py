"""Tell whether a model has taught: by the fingerprints that it would leave on cards."""

from __future__ import annotations

from understudy.models.base import Model
from understudy.reinforce.teachers.own import OwnTeacher


def fingerprints(model: Model) -> set[str]:
    """Return the fingerprints of a CLIP or classifier as a teacher, folded and as it is.

    Args:
        model: left as it is, but frozen and in eval mode.
    """
    forms = (True, False) if not model.is_folded else (False,)
    return {OwnTeacher("scorer", model, fold=fold, device="cpu").fingerprint for fold in forms}
