"""The loader: a sampler's rows, read with one `take` a batch and made into tensors ahead of need.

`Loader(store, sampler, fields)` is the `loader_factory` of `understudy.train.loop.fit`. A batch is
a pure function of (store, sampler, fields, seed, step): which worker makes it, how many there are
and where a run was resumed change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from understudy.core.config import check_choice
from understudy.core.errors import CardError, ConfigError, UnderstudyError
from understudy.data.loader_captions import Captions
from understudy.data.loader_fields import Features, Labels, Raw, Texts
from understudy.data.loader_images import Images
from understudy.data.loader_parts import LoaderStats, sampled_rows, sampled_views, to_tensor
from understudy.data.loader_plan import Binding, Plan, Reader, Want, make_plan, pool_name
from understudy.data.loader_read import Cells, read
from understudy.data.loader_targets import TeacherEmbeddings
from understudy.data.loader_topk import TopK
from understudy.data.loader_torch import StepDataset
from understudy.data.loader_workers import (
    chunks,
    plain_batches,
    process_batches,
    thread_batches,
)

if TYPE_CHECKING:
    from understudy.data.samplers import Sampler
    from understudy.data.store import Store

__all__ = [
    "Captions",
    "Features",
    "Images",
    "Labels",
    "Loader",
    "LoaderStats",
    "Raw",
    "TeacherEmbeddings",
    "Texts",
    "TopK",
]

MODES = ("threads", "processes")
Prepared = tuple[Plan, list[list[Want]], list[Cells]]
Made = tuple[dict[str, Any], dict[str, int]]


class Field(Protocol):
    """A part of the batch; frozen, so that it can be sent to a worker."""

    def bind(self, binding: Binding) -> Reader:
        """Check the store and return the reader."""
        ...


class Loader:
    """Batches of a store by number: `loader(start, count)` yields `count` dictionaries.

    Every batch has `rows` (int64 `[B]`) and what its fields add, as torch tensors.

    Args:
        store: where the columns are.
        sampler: which rows, and which stored view, each step uses.
        fields: what a batch holds, see `Images`, `Texts`, `Captions`, `TeacherEmbeddings`, `TopK`,
            `Labels`, `Features`, `Raw`.
        seed: of augmentation, choice of captions, and of the plain images.
        p: probability that a row uses its stored view and target; otherwise it is the original
            image with an ordinary augmentation and a one-hot target (arXiv 2303.08983 trains with
            0.99). Decided by (seed, epoch, row).
        workers: threads or processes that make batches ahead; 0 makes them when asked for.
        ahead: batches that may be made but not yet asked for (of each worker, for processes).
        mode: `"threads"`, or `"processes"`, which are spawned and need picklable fields.
        read_rows: rows that are read together, for several batches at once; reading is many times
            faster so. Their stored values (not decoded images) are held in memory.

    Raises:
        CardError: a column was written by something else than a field asks for.
        ConfigError: fields that do not fit each other.
        DataError: a column is missing, or not filled in a row that the sampler draws.

    Example:
        >>> from understudy.data.loader import Loader, Images, Labels
        >>> # loader = Loader(store, ShuffledSampler(len(store), 64), [Images(size=32), Labels()])
        >>> # for batch in loader(0, 100): ...
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        fields: Sequence[Field],
        *,
        seed: int = 0,
        p: float = 1.0,
        workers: int = 2,
        ahead: int = 4,
        mode: str = "threads",
        read_rows: int = 1024,
    ) -> None:
        self._start(store, sampler, fields, seed, p, workers, ahead, mode, read_rows, True)

    def _start(
        self,
        store: Store,
        sampler: Sampler,
        fields: Sequence[Field],
        seed: int,
        p: float,
        workers: int,
        ahead: int,
        mode: str,
        read_rows: int,
        check_rows: bool,
    ) -> None:
        check_choice(mode, MODES, "Loader.mode")
        if not 0.0 <= p <= 1.0:
            raise ConfigError(f"Loader.p: expected a probability from 0 to 1, got {p}.")
        if workers < 0 or ahead < 1 or read_rows < 1:
            raise ConfigError(
                f"Loader: expected workers >= 0, ahead >= 1 and read_rows >= 1, got {workers}, "
                f"{ahead} and {read_rows}."
            )
        if not fields:
            raise ConfigError("Loader: no fields; a batch would hold nothing but row numbers.")
        self.store, self.sampler, self.fields = store, sampler, tuple(fields)
        self.seed, self.p = int(seed), float(p)
        self.workers, self.ahead, self.mode, self.read_rows = workers, ahead, mode, read_rows
        self.stats = LoaderStats()
        self._readers = self._bind(check_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.store, self.sampler, self.fields, self.seed, self.p)
        return _again, (*arguments, self.workers, self.ahead, self.mode, self.read_rows)

    def _bind(self, check_rows: bool) -> list[Reader]:
        """Bind the fields: images first, then what teachers said, so that the rest can ask them."""
        views = sampled_views(self.sampler)
        binding = Binding(
            store=self.store,
            seed=self.seed,
            p=self.p,
            views=views,
            sampled=sampled_rows(self.sampler, self.store),
            check_rows=check_rows,
        )
        for one in self.fields:
            if isinstance(one, Images) and one.view_set is not None:
                if binding.view_set not in (None, one.view_set):
                    raise CardError(
                        f"Images replay the view sets '{binding.view_set}' and '{one.view_set}': "
                        "one loader replays one set."
                    )
                binding.view_set = one.view_set
            elif isinstance(one, Captions):
                pool = pool_name(one.captioner)
                known = (
                    binding.picks.setdefault(pool, one.pick),
                    binding.nums.setdefault(pool, one.num),
                )
                if known != (one.pick, one.num):
                    raise ConfigError(
                        f"Captions of '{pool}' are picked in two ways; give both the same."
                    )
        order = sorted(
            range(len(self.fields)), key=lambda i: not isinstance(self.fields[i], Images)
        )
        readers: dict[int, Reader] = {i: self.fields[i].bind(binding) for i in order}
        seen: set[str] = {"rows", "step"}
        for i in range(len(self.fields)):
            for key in readers[i].keys:
                if key in seen:
                    raise ConfigError(f"Loader: two fields make the batch's '{key}'; rename one.")
                seen.add(key)
        return [readers[i] for i in range(len(self.fields))]

    # -- one batch

    def prepare(self, steps: Sequence[int]) -> list[Prepared]:
        """Plan some batches and read what they need together."""
        plans = [make_plan(self.sampler.batch(step), self.seed, self.p) for step in steps]
        wanted = [[reader.wants(plan) for reader in self._readers] for plan in plans]
        flat = [[want for part in parts for want in part] for parts in wanted]
        got = read(self.store, plans, flat)
        return list(zip(plans, wanted, got, strict=True))

    def finish(self, prepared: Prepared) -> Made:
        """Return (a batch of NumPy arrays, what was counted while making it)."""
        plan, wanted, got = prepared
        batch: dict[str, Any] = {"rows": plan.rows.copy()}
        counts = {"plain": int(plan.plain.sum())}
        at = 0
        for reader, wants in zip(self._readers, wanted, strict=True):
            cells = got[at : at + len(wants)]
            at += len(wants)
            for want, cell in zip(wants, cells, strict=True):
                cell.refuse_nulls(self.store, want.column, want.numbers(plan))
            for key, value in reader.make(plan, cells).items():
                if key.startswith("truncated."):
                    counts[key] = int(value)
                else:
                    batch[key] = value
        return batch, counts

    def load(self, step: int) -> dict[str, Any]:
        """Return one batch by number, made now."""
        return self._deliver(self.finish(self.prepare([step])[0]))

    def _deliver(self, made: Made) -> dict[str, Any]:
        batch, counts = made
        self.stats.add(len(batch["rows"]), counts)
        return {key: to_tensor(value) for key, value in batch.items()}

    # -- many

    def as_dataset(self, start: int, count: int) -> StepDataset:
        """Return a map-style dataset of batches, see `understudy.data.loader_torch`."""
        return StepDataset(self, start, count)

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield batches `start` to `start + count - 1`.

        Workers stop when the iterator is closed or dropped. An error is raised here, in place of
        the batch that met it.
        """
        if start < 0 or count < 0:
            raise ConfigError(f"Loader: expected start and count >= 0, got {start} and {count}.")
        steps = range(start, start + count)
        size = self._batches_a_read()
        if self.mode == "processes" and self.workers:
            size = min(size, self.ahead)
        reads = chunks(steps, size, self.sampler.steps_per_epoch)
        if self.workers == 0 or count < 2:
            batches: Iterator[Made] = plain_batches(self, reads)
        elif self.mode == "threads":
            batches = thread_batches(self, reads, self.workers, self.ahead)
        else:
            batches = process_batches(self, reads, self.workers)
        return self._stream(batches)

    def _batches_a_read(self) -> int:
        rows = getattr(self.sampler, "batch_size", 0) or len(self.sampler.batch(0).rows)
        return max(1, self.read_rows // int(rows))

    def _stream(self, batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
        try:
            for made in batches:
                yield self._deliver(made)
        finally:
            batches.close()  # type: ignore[attr-defined]

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream, as plain data: a resumed run must find it unchanged.

        Workers and paths are not part of it.
        """
        columns = sorted({c for reader in self._readers for c in reader.columns})
        return {
            "sampler": self.sampler.describe(),
            "fields": [reader.describe() for reader in self._readers],
            "columns": {c: self._identity(c) for c in columns},
            "seed": self.seed,
            "p": self.p,
        }

    def _identity(self, column: str) -> dict[str, Any] | None:
        try:
            return self.store.card(column).identity()
        except UnderstudyError:
            return None  # it came with the rows


def _again(
    store: Store,
    sampler: Sampler,
    fields: Sequence[Field],
    seed: int,
    p: float,
    workers: int,
    ahead: int,
    mode: str,
    read_rows: int,
) -> Loader:
    """Rebuild a loader in a worker; which rows are filled was checked where it was made."""
    loader = Loader.__new__(Loader)
    loader._start(store, sampler, fields, seed, p, workers, ahead, mode, read_rows, False)
    return loader
