"""`understudy evaluate dense TOWER STORE`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from understudy.cli.common import note, parse_config, show, table

if TYPE_CHECKING:
    from understudy.data.dense import DepthSpec, MaskSpec
    from understudy.data.store import Store
    from understudy.train.dense_config import TransferConfig


@dataclass(frozen=True, kw_only=True)
class DenseOptions:
    """Fine-tune a tower with a dense head on label subsets and score it on the test rows.

    Attributes:
        tower: a run's folder or weights file of a CLIP or classifier (unfolded), or a model's name
            for fresh weights.
        store: pictures with masks or depth maps, and rows of the split to test on.
        task: seg (a class per pixel), depth, or det (boxes and masks of objects).
        head: semantic-fpn, uper, linear; decoder; mask-rcnn. Empty takes the task's first.
        arm: name of the pretraining in reports; the tower's file name if empty.
        labels: fractions up to 1, or counts above 1, of labelled rows; nested subsets.
        masks: column of index masks.
        objects: column with the class of each object, if the masks' indices are objects.
        classes: class names, one a line or a JSON list, in the order of the masks' numbers (with
            the background first where there is one); default the store's.
        ignore: label of pixels that do not count.
        depth: column of depth maps.
        depth_scale: metres of one stored number; 0 takes millimetres for whole numbers, metres for
            others.
        depth_range: smallest and largest depth that count, in metres.
        width: channels of the head's pyramid.
        hidden: channels of the head's blocks.
        statistics: batch normalisation of the tower: train, sync or frozen.
        frozen: let the head alone learn.
        layer_decay: learning-rate factor from layer to layer; 0.65 to 0.9 for a ViT.
        drop_path: of the tower while it is tuned; negative keeps its own.
        size: side of the crops.
        zoom: range of the random zoom before the crop.
        flip: probability of mirroring.
        jitter: largest relative change of brightness, contrast and saturation.
        steps: fine-tuning steps, the same for every label count.
        batch_size: crops a step.
        lrs: learning rates to choose from, on held-back labelled rows.
        validation: labelled rows that are held back for that.
        weight_decay: of AdamW.
        split: rows to test on.
        window: side of sliding windows in testing; 0 takes whole pictures.
        samples_seen: samples that the pretraining saw; -1 reads it from the run's record.
        seed: of subsets, head, order and crops.
        device: cpu, cuda or auto.
        threads: of the processor.
        out: folder of runs and reports.
        json: print JSON.
    """

    tower: str
    store: Path
    task: Literal["seg", "depth", "det"] = "seg"
    head: str = ""
    arm: str = ""
    labels: tuple[float, ...] = (1.0,)
    masks: str = "mask"
    objects: str = ""
    classes: Path | None = None
    ignore: int = 255
    depth: str = "depth"
    depth_scale: float = 0.0
    depth_range: tuple[float, float] = (1e-3, 10.0)
    width: int = 256
    hidden: int = 128
    statistics: Literal["train", "sync", "frozen"] = "train"
    frozen: bool = False
    layer_decay: float = 1.0
    drop_path: float = -1.0
    size: int = 512
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    jitter: float = 0.0
    steps: int = 1000
    batch_size: int = 16
    lrs: tuple[float, ...] = (1e-3,)
    validation: int = 0
    weight_decay: float = 0.05
    split: str = "test"
    window: int = 0
    samples_seen: int = -1
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    out: Path = Path("runs/dense")
    json: bool = False


def dense(argv: Sequence[str], prog: str) -> None:
    """Parse and run `evaluate dense TOWER STORE`."""
    words, rest = list(argv[:2]), list(argv[2:])
    if not (len(words) == 2 and not any(w.startswith("-") for w in words)):
        words, rest = [], list(argv)
    given = [x for pair in zip(("--tower", "--store"), words, strict=False) for x in pair]
    options = parse_config(DenseOptions, [*given, *rest], prog)

    import torch

    from understudy.core.transfer_rows import CURVES, REPORT
    from understudy.data.store import Store
    from understudy.evaluate.dense import Window, dense_scorer
    from understudy.evaluate.rows import select_rows
    from understudy.models.runs import find_model
    from understudy.train.transfer import transfer

    torch.set_num_threads(options.threads)
    store = Store.open(options.store)
    config = _transfer_config(options, store)
    scorer = dense_scorer(
        store,
        select_rows(store, options.split),
        masks=config.tune.masks,
        depth=config.tune.depth,
        window=Window(side=options.window),
    )
    rows = transfer(
        store,
        find_model(options.tower, seed=options.seed),
        config,
        options.out,
        scorer,
        arm=options.arm or Path(options.tower).stem,
        samples_seen=_samples_seen(options),
    )
    for name in (REPORT, CURVES):
        note(f"written: {options.out / name}")
    header = ("labels", "fraction", "metric", "value", "lr", "rates tried", "no pixel of")
    cells = [
        (r.labels, r.fraction, r.metric, r.value, r.lr, r.lrs_tried, " ".join(r.missing_classes))
        for r in rows
    ]
    if options.json:
        from dataclasses import asdict

        show([asdict(row) for row in rows], True, str)
    else:
        print(table(cells, header))


def _samples_seen(options: DenseOptions) -> int:
    """Return the samples of the pretraining: given, of the run's record, 0 for fresh weights."""
    from understudy.core.files import read_json
    from understudy.models import MODELS

    if options.samples_seen >= 0:
        return options.samples_seen
    path = Path(options.tower)
    if not path.exists() and options.tower in MODELS:
        return 0
    record = (path if path.is_dir() else path.parent) / "record.json"
    return int(read_json(record).get("samples_seen", -1)) if record.is_file() else -1


def _masks(options: DenseOptions, store: Store) -> MaskSpec:
    from understudy.data.dense import MaskSpec
    from understudy.evaluate.zeroshot import read_classes

    meta = store.meta
    if options.classes is not None:
        classes = tuple(read_classes(options.classes))
    elif "mask_classes" in meta:
        classes = tuple(meta["mask_classes"])
    else:
        background = ("background",) if options.objects else ()
        classes = (*background, *meta.get("classes", ()))
    return MaskSpec(
        column=options.masks, objects=options.objects, classes=classes, ignore=options.ignore
    )


def _transfer_config(options: DenseOptions, store: Store) -> TransferConfig:
    from understudy.data.dense import DepthSpec
    from understudy.data.dense_augment import DenseAugment
    from understudy.models.dense.config import HEADS, HeadConfig
    from understudy.train.config import TrainConfig
    from understudy.train.dense_config import FineTuneConfig, TransferConfig

    low, high = options.depth_range
    masks: MaskSpec | None = None
    depth: DepthSpec | None = None
    names: tuple[str, ...] = ()
    if options.task == "depth":
        depth = DepthSpec(column=options.depth, scale=options.depth_scale, low=low, high=high)
    else:
        masks = _masks(options, store)
        names = masks.classes[1:] if options.task == "det" else masks.classes
    head = HeadConfig(
        task=options.task,
        kind=options.head or HEADS[options.task][0],
        classes=names,
        width=options.width,
        hidden=options.hidden,
        statistics=options.statistics,
        low=low,
        high=high,
    )
    train = TrainConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        lr=max(options.lrs),
        warmup_steps=options.steps // 20,
        weight_decay=options.weight_decay,
        clip_norm=1.0,
        device=options.device,
    )
    tune = FineTuneConfig(
        head=head,
        masks=masks,
        depth=depth,
        size=options.size,
        augment=DenseAugment(scale=options.zoom, flip=options.flip, jitter=options.jitter),
        frozen=options.frozen,
        layer_decay=options.layer_decay,
        drop_path=options.drop_path,
        train=train,
        seed=options.seed,
    )
    return TransferConfig(
        tune=tune, labels=options.labels, lrs=options.lrs, validation=options.validation
    )
