"""The loader's batches behind PyTorch's `DataLoader`.

Use it where code expects one. Workers are spawned, and every item is a whole batch, so automatic
batching stays off:

    loader = torch_loader(Loader(...), start=0, count=1000, num_workers=4)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from understudy.data.loader import Loader


class StepDataset:
    """A map-style dataset whose item i is the loader's batch `start + i`.

    Args:
        loader: makes the batches.
        start: number of the first one.
        count: how many.
    """

    def __init__(self, loader: Loader, start: int, count: int) -> None:
        if start < 0 or count < 0:
            raise ConfigError(
                f"StepDataset: expected start and count >= 0, got {start} and {count}."
            )
        self.loader, self.start, self.count = loader, start, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < self.count:
            raise IndexError(i)
        return self.loader.load(self.start + i)


def torch_loader(
    loader: Loader, start: int, count: int, *, num_workers: int = 0, **options: Any
) -> DataLoader:
    """Return a `DataLoader` over the loader's batches, in order.

    Args:
        loader: makes the batches.
        start: number of the first one.
        count: how many.
        num_workers: spawned processes; 0 makes batches in this one.
        **options: of `DataLoader`, such as `pin_memory`, `prefetch_factor`, `timeout`.

    Raises:
        ConfigError: an option that would batch again, reorder or fork.
    """
    from torch.utils.data import DataLoader

    for name in ("batch_size", "shuffle", "sampler", "batch_sampler", "collate_fn"):
        if name in options:
            raise ConfigError(
                f"torch_loader: '{name}' belongs to the loader's sampler; an item is a whole batch."
            )
    context = options.pop("multiprocessing_context", "spawn" if num_workers else None)
    if num_workers and "fork" == getattr(context, "_name", context):
        raise ConfigError(
            "torch_loader: workers cannot be forked, where Lance crashes; use 'spawn' or "
            "'forkserver'."
        )
    return DataLoader(
        StepDataset(loader, start, count),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=context,
        **options,
    )
