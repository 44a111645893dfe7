"""What the two demos are: their data, teachers, views and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One demo.

    Attributes:
        name: for people.
        pairs: training pairs, about.
        num_views: stored views a pair.
        size: of the views, in pixels.
        transforms: returns those of the views.
        widths: numbers of each teacher's embeddings.
        captions: synthetic captions a pair.
        model: the students.
        lr: peak learning rate of both students.
        headline: the metric that decides.
        prepare: makes the store.
        asks: makes the reinforcement, training teachers first where there are none.
        extra: scores a student beyond what the recipe does, by name of the table's row.
        facts: what is said on the page.
    """

    name: str
    pairs: int
    num_views: int
    size: int
    transforms: Callable[[], Mapping[str, dict[str, Any]]]
    widths: tuple[int, ...]
    captions: int
    model: str
    lr: float
    headline: str
    prepare: Callable[[Path, int], Store]
    asks: Callable[[Path, Store, Plan, int, Say], ReinforceConfig]
    extra: Callable[[Any, Store], Mapping[str, float]]
    facts: str

    @property
    def views(self) -> ViewConfig:
        """What a stored view is made of."""
        from understudy.data.view_config import ViewConfig

        return ViewConfig(size=self.size, transforms=dict(self.transforms()))

    @property
    def pair_bytes(self) -> int:
        """Bytes that reinforcing adds to a pair, before compression."""
        from understudy.data.views import ViewPipeline
        from understudy.reinforce.plan import sample_bytes

        return sample_bytes(
            {str(i): (width, width) for i, width in enumerate(self.widths)},
            views=self.num_views,
            real=1,
            synthetic=self.captions,
            stride=ViewPipeline(self.views).stride,
        )

    def describe(self, folder: Path, steps: int) -> str:
        """Return what a run would do, in words."""
        looks = self.pairs * self.num_views * len(self.widths)
        return (
            f"{self.name}: about {self.pairs:,} pairs x {self.num_views} stored views x "
            f"{len(self.widths)} teachers ({looks:,} teacher calls, {self.pair_bytes:,} bytes a "
            f"pair, about {self.pairs * self.pair_bytes / 1e6:.1f} MB), then two students of "
            f"{steps:,} steps each.\neverything goes to {folder}"
        )


# -- scenes


def _scenes_store(path: Path, seed: int) -> Store:
    from understudy.data.scenes import to_store

    made = {"train": 4000, "teacher": 0, "test": 1000, "num_captions": 2, "masks": False}
    return to_store("pairs", path, seed=seed, **made)


def _scenes_asks(folder: Path, store: Store, plan: Plan, seed: int, say: Say) -> ReinforceConfig:
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.teachers.shipped import NAMES, shipped

    return ReinforceConfig(
        num_views=plan.num_views,
        views=plan.views,
        teachers=tuple(
            TeacherSpec(name=name, path=str(shipped(name)), logit_scale=30.0) for name in NAMES
        ),
        rows="split = 'train'",
        seed=seed,
    )


def _scenes_extra(model: Any, store: Store) -> Mapping[str, float]:
    from understudy.data.scenes.pair_words import CLASSES
    from understudy.evaluate.held_out import held_out_rows
    from understudy.evaluate.run import evaluate_model
    from understudy.recipes.mobileclip_measure import digit_pair_prompts

    rows = held_out_rows(store)
    pairs = rows[store.array("label", rows) >= 0]
    names = [f"{a} and {b}" for a, b in CLASSES]
    prompts = {name: digit_pair_prompts(name) for name in names}
    found = evaluate_model(
        model, store, rows=pairs, tasks=("zeroshot",), classes=names, prompts=prompts
    )
    few = evaluate_model(model, store, rows=rows[:200], tasks=("retrieval",))
    return {
        "R@1 among 200 unseen scenes": few["retrieval.mean_r1"],
        "zero-shot digit pairs, top-1": found["zeroshot.top1"],
        "zero-shot digit pairs, top-5": found["zeroshot.top5"],
    }


def _scenes_transforms() -> Mapping[str, dict[str, Any]]:
    from understudy.recipes.mobileclip_arms import VIEWS

    return VIEWS["weak"]


SCENES = Plan(
    name="scenes of real handwritten digits",
    pairs=4000,
    num_views=5,
    size=48,
    transforms=_scenes_transforms,
    widths=(64, 72),
    captions=2,
    model="clip-conv-nano",
    lr=3e-3,
    headline="retrieval.mean_r1",
    prepare=_scenes_store,
    asks=_scenes_asks,
    extra=_scenes_extra,
    facts=(
        "4,000 scenes of two or three real handwritten digits with unreliable alt text. Two "
        "teachers that never saw these scans; a plain and a reinforced student at equal steps."
    ),
)


# -- emoji


def _emoji_store(path: Path, seed: int) -> Store:
    from understudy.data.fetch import to_store
    from understudy.data.fetch_emoji import write_captions

    store = to_store("emoji", path, skin_tones=False)
    return write_captions(store)


def _emoji_asks(folder: Path, store: Store, plan: Plan, seed: int, say: Say) -> ReinforceConfig:
    from dataclasses import replace

    from understudy.data.fetch import fetch
    from understudy.recipes import RECIPES
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.encoder_specs import parse_encoder

    def part(line: str) -> dict[str, Any]:
        spec, _ = parse_encoder(line)
        return {"kind": spec.kind, "model": spec.model, "path": spec.path, "options": spec.options}

    ape = RECIPES.load("ape")
    fetch("minilm")
    specs = []
    for net in ("lite0", "lite1"):
        out = folder / f"teacher-{net}"
        encoder = f"{net}=asset:efficientnet-{net}?size=128"
        fetch(f"efficientnet-{net}")
        if not (out / "result.json").exists():
            say(f"aligning EfficientNet-{net} with MiniLM on names of the training subcategories")
            config = ape.preset(ape.Config(store=Path(store.path), out=out, preset="emoji"))
            ape.run(replace(config, preset="", image_encoders=(encoder,)))
        specs.append(
            TeacherSpec(
                name=f"{net}-minilm",
                kind="aligned",
                path=str(out / "aligner.safetensors"),
                logit_scale=60.0,
                upscale=True,
                options={"image": part(encoder), "text": part("minilm=asset:minilm")},
            )
        )
    return ReinforceConfig(
        num_views=plan.num_views,
        views=plan.views,
        teachers=tuple(specs),
        rows="split = 'train'",
        seed=seed,
    )


def _emoji_extra(model: Any, store: Store) -> Mapping[str, float]:
    from understudy.evaluate.run import evaluate_model

    found = {}
    for split, words in (
        ("test", "held-out subcategories"),
        ("vendor-test", "held-out, unseen vendor's drawings"),
        ("vendor", "known names, unseen vendor's drawings"),
    ):
        scores = evaluate_model(model, store, split=split, tasks=("retrieval",))
        for k in (1, 10):
            found[f"R@{k}, {words} ({int(scores['rows']):,})"] = scores[f"retrieval.mean_r{k}"]
    return found


# Views, scale and headline were chosen on the split `val`: a nano student underfits strong views in
# 1,500 steps, and one of 314 is too few hits to decide by.
EMOJI = Plan(
    name="emoji",
    pairs=1474,
    num_views=5,
    size=64,
    transforms=lambda: {
        "random_resized_crop": {"scale": [0.8, 1.0], "interpolation": "bicubic"},
    },
    widths=(384, 384),
    captions=4,
    model="clip-conv-nano",
    lr=2e-3,
    headline="retrieval.mean_r10",
    prepare=_emoji_store,
    asks=_emoji_asks,
    extra=_emoji_extra,
    facts=(
        "Real emoji and their names. The teachers are EfficientNet-Lite and MiniLM, which never "
        "met, aligned by small heads on the training subcategories. Students are scored on "
        "subcategories that nobody saw, and on another vendor's drawings."
    ),
)
