"""Teachers that are asked at every step instead of once: the price that reinforcement saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.data.knowledge import captions_column
from understudy.data.loader import Captions, Loader
from understudy.data.loader_plan import make_plan, pick_captions
from understudy.models.multimodal.clip import CLIP
from understudy.models.preprocess import Preprocess

if TYPE_CHECKING:
    from understudy.data.store import Store


class OnlineTeachers:
    """A loader whose batches get teachers' embeddings while training waits for them.

    The teachers see the very images and captions of the batch, so that the same objective and the
    same targets come about as from stored columns (up to their storage type).

    Args:
        store: where the captions are.
        loader: makes the batches; its images are normalised with `preprocess`.
        teachers: CLIPs with tokenizers; folded here, where they are not yet.
        preprocess: the student's.
        captioner: whose captions the loader picks; None for none.
        text_column: payload column of real captions; None for none.
        pick: how the loader picks captions; None asks its fields.

    Raises:
        ConfigError: a teacher that takes images of another size, or has no tokenizer.
    """

    def __init__(
        self,
        store: Store,
        loader: Loader,
        teachers: Sequence[CLIP],
        preprocess: Preprocess,
        *,
        captioner: str | None = None,
        text_column: str | None = "text",
        pick: str | None = None,
    ) -> None:
        for teacher in teachers:
            if teacher.preprocess.size != preprocess.size or teacher.tokenizer is None:
                raise ConfigError(
                    f"online teacher {teacher.config.name}: it needs a tokenizer and images of "
                    f"{preprocess.size} px like the student, and takes "
                    f"{teacher.preprocess.size} px; reinforce the store with it instead."
                )
        self.store, self.loader, self.preprocess = store, loader, preprocess
        self.teachers = [t if t.is_folded else t.eval().fold() for t in teachers]
        self.captioner, self.text_column = captioner, text_column
        fields = (f for f in loader.fields if isinstance(f, Captions))
        picks = (f.pick for f in fields if f.captioner == captioner)
        self.pick = pick or next(picks, "random")

    def describe(self) -> dict[str, Any]:
        """Return the loader's description and the teachers' names."""
        return {**self.loader.describe(), "online": [t.config.name for t in self.teachers]}

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield the loader's batches with `teacher_images`, `teacher_texts`, `teacher_syn_texts`.

        Args:
            start: number of the first batch.
            count: how many.
        """
        for step, batch in enumerate(self.loader(start, count), start=start):
            yield {**batch, **self.ask(step, batch["images"])}

    @torch.no_grad()
    def ask(self, step: int, images: Tensor) -> dict[str, list[Tensor]]:
        """Return what the teachers say of a batch's images and captions."""
        out: dict[str, list[Tensor]] = {
            "teacher_images": [t.encode_image(self._input(images, t)) for t in self.teachers]
        }
        for key, texts in self._texts(step).items():
            out[key] = [t.encode_text(t.tokenize(texts)) for t in self.teachers]
        return out

    def _input(self, images: Tensor, teacher: CLIP) -> Tensor:
        own, theirs = self.preprocess, teacher.preprocess
        if (own.mean, own.std) == (theirs.mean, theirs.std):
            return images
        mean, std, mean2, std2 = (
            torch.tensor(v).reshape(1, 3, 1, 1)
            for v in (own.mean, own.std, theirs.mean, theirs.std)
        )
        return (images * std + mean - mean2) / std2

    def _texts(self, step: int) -> dict[str, list[str]]:
        plan = make_plan(self.loader.sampler.batch(step), self.loader.seed, self.loader.p)
        found: dict[str, list[str]] = {}
        if self.text_column is not None:
            table = self.store.take(plan.rows, [self.text_column])
            found["teacher_texts"] = table.column(0).to_pylist()
        if self.captioner is not None:
            column = captions_column(self.captioner)
            lists = self.store.take(plan.rows, [column]).column(0).to_pylist()
            counts = np.array([len(row) for row in lists], np.int64)
            chosen = pick_captions(plan, self.captioner, self.pick, counts)
            found["teacher_syn_texts"] = [
                row[place] for row, place in zip(lists, chosen.tolist(), strict=True)
            ]
        return found
