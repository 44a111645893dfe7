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
from understudy.data.loader_captions import pooled
from understudy.data.loader_parts import LoaderStats
from understudy.data.loader_plan import captioners, make_plan, pick_captions, pool_name
from understudy.models.multimodal.clip import CLIP
from understudy.models.preprocess import Preprocess
from understudy.train.teacher_input import check_size, renormalise

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
        captioner: whose captions the loader picks, see `Captions`; None for none.
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
        captioner: str | Sequence[str] | None = None,
        text_column: str | None = "text",
        pick: str | None = None,
    ) -> None:
        for teacher in teachers:
            check_size(preprocess, teacher.preprocess, teacher.config.name)
            if teacher.tokenizer is None:
                raise ConfigError(
                    f"online teacher {teacher.config.name}: it has no tokenizer, and must read the "
                    "batch's captions; call its set_tokenizer first."
                )
        self.store, self.loader, self.preprocess = store, loader, preprocess
        self.teachers = [t if t.is_folded else t.eval().fold() for t in teachers]
        self.captioners = () if captioner is None else captioners(captioner)
        self.text_column = text_column
        fields = (f for f in loader.fields if isinstance(f, Captions))
        mine = [f for f in fields if captioners(f.captioner) == self.captioners]
        self.pick = pick or (mine[0].pick if mine else "random")
        self.num = mine[0].num if mine else 0

    @property
    def sampler(self) -> Any:
        """Which rows each step uses."""
        return self.loader.sampler

    @property
    def stats(self) -> LoaderStats:
        """What was delivered so far."""
        return self.loader.stats

    def load(self, step: int) -> dict[str, Any]:
        """Return one batch by number, made now."""
        batch = self.loader.load(step)
        return {**batch, **self.ask(step, batch["images"])}

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
            "teacher_images": [
                t.encode_image(renormalise(images, self.preprocess, t.preprocess))
                for t in self.teachers
            ]
        }
        for key, texts in self._texts(step).items():
            out[key] = [t.encode_text(t.tokenize(texts)) for t in self.teachers]
        return out

    def _texts(self, step: int) -> dict[str, list[str]]:
        plan = make_plan(self.loader.sampler.batch(step), self.loader.seed, self.loader.p)
        found: dict[str, list[str]] = {}
        if self.text_column is not None:
            table = self.store.take(plan.rows, [self.text_column])
            found["teacher_texts"] = table.column(0).to_pylist()
        if self.captioners:
            columns = [captions_column(name) for name in self.captioners]
            table = self.store.take(plan.rows, columns)
            parts = [table.column(name).to_pylist() for name in columns]
            lists = pooled(parts, self.num)
            counts = np.array([len(row) for row in lists], np.int64)
            chosen = pick_captions(plan, pool_name(self.captioners), self.pick, counts)
            found["teacher_syn_texts"] = [
                row[place] for row, place in zip(lists, chosen.tolist(), strict=True)
            ]
        return found
