"""Train an embedder without labels: two views of a picture agree, or the picture is rebuilt.

What comes out is stored beside an old model's embeddings (side information), so that a later map to
a new model has more to go on than what the old model kept.

    >>> from understudy.train.simclr import SelfSupervisedConfig, train_selfsupervised
    >>> config = SelfSupervisedConfig(model="resnet50-128", train=train)    # doctest: +SKIP
    >>> train_selfsupervised(store, None, config, "runs/psi")              # doctest: +SKIP

References:
    SimCLR: arXiv 2002.05709. As side information: FCT, arXiv 2112.02805.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError
from understudy.data.loader import Loader
from understudy.models.image.classifier import Classifier
from understudy.models.runs import load_run, names_weights
from understudy.objectives.gather import GatherGroup
from understudy.objectives.selfsup import reconstruct, simclr
from understudy.train.config import TrainConfig
from understudy.train.student_base import StudentBase
from understudy.train.student_batches import make_loader
from understudy.train.student_run import Evaluate, StudentResult, run_student, settle
from understudy.train.view_noise import ViewNoise

if TYPE_CHECKING:
    from understudy.data.store import Store

LEARNS = ("simclr", "reconstruct")


def _small_run() -> TrainConfig:
    return TrainConfig(steps=1000, batch_size=128, lr=1e-3, warmup_steps=50, weight_decay=1e-4)


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfSupervisedConfig(StudentBase):
    """Describe an embedder and what it learns from.

    Attributes:
        model: a key of `understudy.models.MODELS` that is a classifier; its head is left out.
        learn: `simclr` (two random views agree) or `reconstruct` (an auto-encoder).
        augment: transforms of both views, drawn anew for each, as in `ViewConfig`; empty leaves
            `shift` and `noise` alone to make them differ.
        temperature: of NT-Xent.
        projection: width of a hidden layer behind the embedding that the loss sees and that is
            thrown away afterwards; 0 compares embeddings themselves.
        shift: largest shift of a view in pixels, in both directions; what comes in is black.
        noise: standard deviation of Gaussian noise on a view, pixels being 0 to 1.

    Raises:
        ConfigError: views that would be equal, or numbers out of range.
    """

    model: str = "resnet50-128"
    learn: Literal["simclr", "reconstruct"] = "simclr"
    temperature: float = 0.5
    projection: int = 0
    shift: int = 0
    noise: float = 0.0
    train: TrainConfig = field(default_factory=_small_run)

    def __post_init__(self) -> None:
        check_choice(self.learn, LEARNS, "learn")
        for name in ("projection", "shift", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected at least 0, got {getattr(self, name)}.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature: expected more than 0, got {self.temperature}.")
        if self.view_set:
            raise ConfigError("view_set: views are drawn anew here; describe them by 'augment'.")
        if self.learn == "simclr" and not (self.augment or self.shift or self.noise):
            raise ConfigError(
                "augment, shift, noise: without any, both views of a picture are equal and nothing "
                "is learned; give augment (random_resized_crop, ...), or shift and noise."
            )


class PairedViews:
    """Two loaders over the same rows that draw their views independently: a loader factory.

    Batches are the first loader's, with the second one's `images` as `other_images`.
    """

    def __init__(self, first: Loader, second: Loader) -> None:
        self.first, self.second = first, second
        self.sampler, self.stats = first.sampler, first.stats

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield `count` batches from number `start` on."""
        for batch, other in zip(self.first(start, count), self.second(start, count), strict=True):
            yield {**batch, "other_images": other["images"]}

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream."""
        return {"first": self.first.describe(), "second": self.second.describe()}


class SelfSupervised(nn.Module):
    """An embedder with what surrounds it while it learns.

    Args:
        encoder: gives `features`; what a run saves.
        after: the projection, or the decoder; thrown away afterwards.
    """

    def __init__(self, encoder: Classifier, after: nn.Module) -> None:
        super().__init__()
        self.encoder, self.after = encoder, after

    @property
    def saved(self) -> nn.Module:
        """What a run writes."""
        return self.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Return what the loss sees."""
        return self.after(self.encoder.features(images))


class SelfSupervisedStep:
    """Makes the views of a batch and compares or rebuilds them.

    Args:
        config: what is learned.
        views: shifts and noise of a view.
        group: ranks that share negatives.
    """

    def __init__(
        self, config: SelfSupervisedConfig, views: ViewNoise, group: GatherGroup | None = None
    ) -> None:
        self.config, self.views, self.group = config, views, group or GatherGroup()

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses."""
        images = batch["images"]
        if self.config.learn == "reconstruct":
            made = model(self.views(images))
            return reconstruct({"rebuilt": made.reshape(images.shape)}, batch)
        first, second = self.views(images), self.views(batch.get("other_images", images))
        outputs = {"views": model(first), "other_views": model(second)}
        return simclr(outputs, batch, temperature=self.config.temperature, group=self.group)


def make_embedder(config: SelfSupervisedConfig) -> Classifier:
    """Make the embedder that a configuration describes, without a head.

    Raises:
        ConfigError: no such model, no classifier's tower, or weights that have a head.
    """
    from understudy import models

    if names_weights(config.model):
        if config.changes:
            raise ConfigError(
                f"changes: {config.model} holds weights, whose configuration cannot change."
            )
        model: Any = load_run(config.model, folded=False)
    else:
        described = models.config(config.model)
        changes = dict(config.changes)
        if hasattr(described, "num_classes"):
            changes["num_classes"] = 0
        model = models.create(config.model, seed=config.seed, **changes)
    return _check_embedder(model)


def _check_embedder(model: Any) -> Classifier:
    if not isinstance(model, Classifier) or model.config.num_classes:
        what = "has a classifier's head" if isinstance(model, Classifier) else "is no image tower"
        raise ConfigError(
            f"train_selfsupervised: {model.config.name} {what}, which would learn nothing; give a "
            "classifier made with num_classes=0."
        )
    return model


def _after(config: SelfSupervisedConfig, model: Classifier) -> nn.Module:
    import torch

    from understudy.core.seeds import seed_for

    width, size = model.config.image.width, model.preprocess.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("selfsup head", config.seed))
        if config.learn == "reconstruct":
            hidden = config.projection or 4 * width
            last = nn.Linear(hidden, 3 * size * size)
            return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last)
        if not config.projection:
            return nn.Identity()
        hidden = config.projection
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


def train_selfsupervised(
    store: Store,
    model: Classifier | str | None,
    config: SelfSupervisedConfig,
    out: str | Path,
    evaluate: Evaluate | None = None,
    *,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> StudentResult:
    """Train an embedder on a store's pictures, without labels.

    Args:
        store: with images.
        model: a classifier without a head, trained in place; a name or path instead of
            `config.model`; None takes `config.model`.
        config: what it learns from, how long and how fast.
        out: the run's folder; see `understudy.train.loop.fit`. `student.json` is added.
        evaluate: `evaluate(model) -> metrics`.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Raises:
        ConfigError: a model with a head, or options that do not fit each other.
        DataError: no rows.
    """
    config = settle(config, model)
    given = isinstance(model, Classifier)
    student = _check_embedder(model) if given else make_embedder(config)
    loader: Any = make_loader(store, student, config, [])
    if config.learn == "simclr" and config.augment:
        other = Loader(
            store,
            loader.sampler,
            loader.fields,
            seed=config.seed + 1,
            workers=config.workers,
        )
        loader = PairedViews(loader, other)
    step = SelfSupervisedStep(
        config, ViewNoise(student.preprocess, shift=config.shift, noise=config.noise)
    )
    learned = {k: v for k, v in to_dict(config).items() if k not in ("model", "train", "workers")}
    return run_student(
        store,
        student,
        step,
        loader,
        config,
        out,
        evaluate,
        learned=learned,
        trained=SelfSupervised(student, _after(config, student)),
        resume=resume,
        context=context,
    )
