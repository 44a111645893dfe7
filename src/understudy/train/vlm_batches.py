"""Batches of conversations: token ids with image sentinels, labels, and what the tower sees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.dialogue import check_turns
from understudy.core.errors import DataError
from understudy.data.decode import decode
from understudy.data.loader_fields import strings
from understudy.data.loader_plan import Binding, Plan, Want
from understudy.data.loader_read import Cells
from understudy.models.multimodal.anyres import Pinpoint, tile
from understudy.models.multimodal.chat import encode_conversation
from understudy.models.multimodal.splice import fit_context
from understudy.models.multimodal.vlm import VLM
from understudy.models.preprocess import Preprocess, fit, to_tensor


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """Conversations with their images; a field of `understudy.data.loader.Loader`.

    A batch gets `ids` and `labels` (lists of int64 [length]), `pixels` float32
    [views, 3, size, size] in [0, 1] and `views`, the number of views of each image. Text that is
    too long for the context is cut at its end, never an image; what was cut is counted as
    `truncated.ids`.

    Attributes:
        coder: the language model's tokenizer.
        template: of the conversations.
        preprocess: of the vision tower.
        tokens_per_view: visual tokens of one view.
        context: tokens of a sequence at most.
        pinpoints: grids of tiles; none: one view an image.
        column: column of conversations, JSON.
        image_column: column of encoded images; empty where a conversation has none.
    """

    coder: Any
    template: str
    preprocess: Preprocess
    tokens_per_view: int
    context: int
    pinpoints: tuple[Pinpoint, ...] = ()
    column: str = "conversations"
    image_column: str = "image"

    def bind(self, binding: Binding) -> DialogueReader:
        """Check that the columns are there and return the reader.

        Raises:
            DataError: a column is missing.
        """
        for column in (self.column, self.image_column):
            if not binding.store.has(column):
                raise DataError(
                    f"{binding.store.path}: no column '{column}'; import conversations with "
                    "`understudy data import --kind conversations`."
                )
        return DialogueReader(self, binding)


def dialogues(model: VLM, template: str = "") -> Dialogues:
    """Return the field that fits a model.

    Args:
        model: says tokenizer, resolution, tiles and context.
        template: another than the model's.
    """
    config = model.config
    return Dialogues(
        coder=model.coder,
        template=template or config.template,
        preprocess=model.preprocess,
        tokens_per_view=config.tokens_per_view,
        context=model.context,
        pinpoints=config.pinpoints,
    )


class DialogueReader:
    """`Dialogues`, bound to a store."""

    keys = ("ids", "labels", "pixels", "views")

    def __init__(self, field: Dialogues, binding: Binding) -> None:
        self.field, self.lock = field, binding.lock
        self.columns = (field.image_column, field.column)

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for images and conversations."""
        return [Want(column) for column in self.columns]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Decode, tokenise and fit."""
        field = self.field
        images, texts = got[0].to_pylist(), strings(got[1], field.column)
        ids, labels, views = [], [], []
        pixels: list[np.ndarray] = []
        cut = 0
        for row, image, text in zip(plan.rows.tolist(), images, texts, strict=True):
            where = f"row {row}"
            shown = self._views(image, where)
            made, learned = self._encode(text, 1 if shown else 0, where)
            tokens = [len(shown) * field.tokens_per_view] if shown else []
            fitted = fit_context(made, learned, tokens, field.context, where)
            cut += bool(fitted.cut)
            ids.append(np.array(fitted.ids, np.int64))
            labels.append(np.array(fitted.labels, np.int64))
            views += [len(shown)] if shown else []
            pixels += shown
        size = field.preprocess.size
        stacked = to_tensor(np.stack(pixels), field.preprocess).numpy() if pixels else None
        return {
            "ids": ids,
            "labels": labels,
            "pixels": np.zeros((0, 3, size, size), np.float32) if stacked is None else stacked,
            "views": views,
            "truncated.ids": cut,
        }

    def _views(self, image: bytes, where: str) -> list[np.ndarray]:
        field = self.field
        if not image:
            return []
        pixels = decode(image, name=f"image of {where}")
        if field.pinpoints:
            return tile(pixels, field.pinpoints, field.preprocess)
        return [fit(pixels, field.preprocess)]

    def _encode(self, text: str, given: int, where: str) -> tuple[list[int], list[int]]:
        try:
            turns = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}: the conversation is not JSON ({error}).") from None
        turns = check_turns(turns, where)
        with self.lock:
            return encode_conversation(turns, self.field.coder, self.field.template, given, where)

    def describe(self) -> dict[str, Any]:
        """Return what decides the values."""
        field = self.field
        return {
            "dialogues": field.column,
            "template": field.template,
            "tokenizer": field.coder.fingerprint(),
            "preprocess": to_dict(field.preprocess),
            "context": field.context,
            "pinpoints": [list(p) for p in field.pinpoints],
        }
