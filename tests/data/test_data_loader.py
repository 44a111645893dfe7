"""The loader: each field against the store by hand, one take a batch, the same batch everywhere."""

from __future__ import annotations

import json
import pickle
import threading
from dataclasses import dataclass
from itertools import pairwise

import loader_store as made
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_store import CLASSES, CONFIG, MIXING, ROWS, TEACHERS, VIEWS, WordCounter

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.knowledge import from_bfloat16, to_bfloat16
from understudy.data.loader import (
    Captions,
    Features,
    Images,
    Labels,
    Loader,
    Raw,
    TeacherEmbeddings,
    Texts,
    TopK,
)
from understudy.data.loader_torch import torch_loader
from understudy.data.loader_workers import chunks
from understudy.data.samplers import Batch, SequentialSampler, ShuffledSampler
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.data.views import ViewPipeline
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, normalise, to_tensor


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return made.make_store(tmp_path_factory.mktemp("loader") / "store")


def shuffled(batch_size: int = 8, **options) -> ShuffledSampler:
    return ShuffledSampler(ROWS, batch_size, 3, **{"num_views": VIEWS, **options})


def all_fields(pick: str = "random") -> list:
    tokenize = WordCounter()
    return [
        Images(size=16, view_set="main"),
        Texts(tokenize=tokenize, context=6),
        Captions(captioner="coca", tokenize=tokenize, pick=pick),
        TeacherEmbeddings(teachers=("ta", "tb"), captions="coca"),
        TopK(teacher="ens", k=3, num_classes=CLASSES),
        Labels(),
        Features(column="feature.enc.image", fingerprint="hash-enc", shape=(5,)),
        Raw(column="id"),
    ]


def same(a: dict, b: dict) -> None:
    assert list(a) == list(b)
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == b[key].dtype, key
            assert torch.equal(value, b[key]), key
        elif value and isinstance(value[0], torch.Tensor):
            assert all(torch.equal(x, y) for x, y in zip(value, b[key], strict=True)), key
        else:
            assert value == b[key], key


def stored(teacher: str, values: np.ndarray) -> np.ndarray:
    """Return values as they come back from storage."""
    if TEACHERS[teacher][1] == "bfloat16":
        return from_bfloat16(to_bfloat16(values))
    return values.astype(np.float16).astype(np.float32)


def views_by_hand(rows: np.ndarray, k: int, config: ViewConfig = CONFIG) -> np.ndarray:
    """Replay stored view k of rows, without the loader and without the store."""
    pipeline = ViewPipeline(config)
    images = [made.image(int(r)) for r in rows]
    params = pipeline.sample([i.shape[:2] for i in images], rows + 1000 * k)
    return pipeline.apply(images, params)


# --- what a batch holds ---------------------------------------------------------------------------


def test_every_field_is_what_was_stored(store):
    sampler = shuffled()
    loader = Loader(store, sampler, all_fields())
    for step, batch in enumerate(loader(0, 6)):
        plan = sampler.batch(step)
        rows = plan.rows
        assert batch["rows"].tolist() == rows.tolist()
        assert batch["id"] == [f"sample-{r}" for r in rows]
        assert batch["labels"].tolist() == [r % CLASSES for r in rows]
        views = torch.from_numpy(views_by_hand(rows, plan.view).transpose(0, 3, 1, 2).copy())
        assert torch.equal(batch["images"], views.float() / 255)
        assert batch["texts"][:, 1].tolist() == [r + 1 for r in rows]
        # a caption's ids say which one it is; the embedding must be of that one
        syn = batch["syn_texts"]
        assert syn[:, 1].tolist() == [r + 1 for r in rows]
        picked = (syn[:, 3] - 1).tolist()
        for i, teacher in enumerate(("ta", "tb")):
            wanted = {
                "teacher_images": made.embedding(teacher, "view", plan.view, rows),
                "teacher_texts": made.embedding(teacher, "text", 0, rows),
                "teacher_syn_texts": np.concatenate(
                    [
                        made.embedding(teacher, "caption", s, rows[j : j + 1])
                        for j, s in enumerate(picked)
                    ]
                ),
            }
            for key, values in wanted.items():
                assert batch[key][i].dtype == torch.float32
                np.testing.assert_array_equal(batch[key][i].numpy(), stored(teacher, values))
        p, ids = made.probabilities(plan.view, rows)
        np.testing.assert_array_equal(batch["topk_p"].numpy(), p.astype(np.float16).astype("f4"))
        np.testing.assert_array_equal(batch["topk_id"].numpy(), ids)
        expected = np.arange(ROWS * 5).reshape(ROWS, 5)[rows]
        np.testing.assert_array_equal(batch["features"].numpy(), expected)


def test_normalisation_is_the_models_own(store):
    field = Images(size=16, view_set="main", mean=CLIP_MEAN, std=CLIP_STD)
    batch = Loader(store, shuffled(), [field]).load(0)
    plan = shuffled().batch(0)
    views = views_by_hand(plan.rows, plan.view).transpose(0, 3, 1, 2).copy()
    preprocess = Preprocess(size=16, mean=CLIP_MEAN, std=CLIP_STD)
    assert torch.equal(batch["images"], normalise(torch.from_numpy(views), preprocess))


def test_evaluation_images_equal_the_models_preprocessing(store):
    field = Images(size=20, mean=CLIP_MEAN, std=CLIP_STD)
    sampler = SequentialSampler(ROWS, 10)
    batches = list(Loader(store, sampler, [field])(0, sampler.steps_per_epoch))
    assert [len(b["rows"]) for b in batches] == [10, 10, 4]
    preprocess = Preprocess(size=20, mean=CLIP_MEAN, std=CLIP_STD)
    expected = to_tensor([made.image(r) for r in range(ROWS)], preprocess)
    assert torch.equal(torch.cat([b["images"] for b in batches]), expected)


def test_a_batch_is_one_take_of_the_columns_it_uses(store, monkeypatch):
    calls: list[list[str]] = []
    take = type(store).take

    def counted(self, rows, columns):
        calls.append(list(columns))
        return take(self, rows, columns)

    loader = Loader(store, shuffled(), all_fields("epoch"), workers=0)
    monkeypatch.setattr(type(store), "take", counted)
    view = shuffled().batch(2).view
    s = int(loader.load(2)["syn_texts"][0, 3]) - 1
    assert len(calls) == 1
    assert sorted(calls[0]) == sorted(
        [
            *("image", "text", "label", "id", "caption.coca", "feature.enc.image"),
            f"view.main.{view}",
            *(f"{t}.image.main.{view}" for t in TEACHERS),
            *(f"{t}.{k}" for t in TEACHERS for k in ("text", f"caption.coca.{s}")),
            f"ens.topk.main.{view}",
        ]
    )
    assert "extra" not in calls[0]


def test_views_drawn_by_row_are_read_by_view(store):
    sampler = shuffled(view_order="random")
    loader = Loader(store, sampler, all_fields())
    plan = sampler.batch(1)
    assert len(set(plan.view.tolist())) > 1
    batch = loader.load(1)
    for j, (row, k) in enumerate(zip(plan.rows, plan.view.tolist(), strict=True)):
        one = np.array([row])
        view = views_by_hand(one, k)[0].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(batch["images"][j].numpy(), view)
        for i, teacher in enumerate(TEACHERS):
            expected = stored(teacher, made.embedding(teacher, "view", k, one))[0]
            np.testing.assert_array_equal(batch["teacher_images"][i][j].numpy(), expected)
        np.testing.assert_array_equal(batch["topk_id"][j].numpy(), made.probabilities(k, one)[1][0])


def test_mixed_views_replay_with_their_partners(store):
    sampler = shuffled(num_views=1)
    batch = Loader(store, sampler, [Images(size=16, view_set="mixed")]).load(0)
    rows = np.arange(ROWS)
    pipeline = ViewPipeline(MIXING)
    sizes = np.array([made.image(r).shape[:2] for r in rows])
    chosen = pipeline.draw_partners(rows, ROWS, rows)
    params = pipeline.sample(sizes, rows, (chosen, sizes[chosen]))
    images = [made.image(r) for r in rows]
    views = pipeline.apply(images, params, partners=[images[r] for r in chosen])
    expected = views[sampler.batch(0).rows].transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(batch["images"].numpy(), expected)


# --- the same batch everywhere --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 1},
        {"workers": 3},
        {"workers": 0},
        {"workers": 2, "read_rows": 1, "ahead": 1},
        {"workers": 0, "read_rows": 16},
    ],
)
def test_workers_and_reads_do_not_change_a_batch(store, options):
    alone = Loader(store, shuffled(), all_fields())
    ahead = Loader(store, shuffled(), all_fields(), **options)
    for step, batch in zip(range(1, 10), ahead(1, 9), strict=True):
        same(alone.load(step), batch)
    assert alone.stats == ahead.stats


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 40),
    count=st.integers(0, 40),
    size=st.integers(1, 9),
    epoch=st.one_of(st.none(), st.integers(1, 13)),
)
def test_reads_cover_the_steps_and_stay_in_their_epoch(start, count, size, epoch):
    parts = chunks(range(start, start + count), size, epoch)
    assert [s for part in parts for s in part] == list(range(start, start + count))
    for part in parts:
        assert 1 <= len(part) <= size
        if epoch:
            assert part[0] // epoch == part[-1] // epoch
            assert part[0] == start or part[0] % epoch % size == 0


def test_reading_ahead_is_one_take_an_epoch_and_view(store, monkeypatch):
    calls: list[list[str]] = []
    take = type(store).take
    loader = Loader(store, shuffled(), all_fields("epoch"))
    monkeypatch.setattr(
        type(store), "take", lambda self, r, c: (calls.append(list(c)), take(self, r, c))[1]
    )
    list(loader(0, 9))
    assert len(calls) == 3
    assert all(len({c for c in call if c.startswith("view.")}) == 1 for call in calls)


def test_processes_and_pytorchs_loader_do_not_change_a_batch(store):
    loader = Loader(store, shuffled(), all_fields(), workers=1, mode="processes")
    alone = [loader.load(s) for s in range(2, 5)]
    cut = dict(loader.stats.truncated)
    for a, b in zip(alone, loader(2, 3), strict=True):
        same(a, b)
    assert loader.stats.truncated == {k: 2 * v for k, v in cut.items()}  # counted in workers too
    for a, b in zip(alone, torch_loader(loader, 2, 3, num_workers=1), strict=True):
        same(a, b)
    dataset = loader.as_dataset(2, 3)
    assert len(dataset) == 3
    same(dataset[1], alone[1])


@pytest.mark.parametrize("options", [{}, {"block": 4, "window": 2}, {"view_order": "random"}])
def test_resuming_goes_on_with_the_same_batches(store, options):
    fields = [*all_fields()[:4], Labels()]
    whole = list(Loader(store, shuffled(**options), fields)(0, 10))
    later = list(Loader(store, shuffled(**options), fields)(6, 4))
    assert len(whole) == 10
    assert len(later) == 4
    for a, b in zip(whole[6:], later, strict=True):
        same(a, b)
    # batches that did not depend on the step would be equal as well
    for a, b in pairwise(whole):
        assert not torch.equal(a["rows"], b["rows"])
        assert not torch.equal(a["images"], b["images"])


def test_an_item_does_not_depend_on_its_batch(store):
    fields = [
        Images(size=16, plain=CONFIG),
        Captions(captioner="coca", tokenize=WordCounter()),
    ]

    def by_row(size: int) -> dict[int, tuple]:
        sampler = ShuffledSampler(ROWS, size, 3, num_views=VIEWS)
        steps = sampler.steps_per_epoch
        found = {}
        for batch in Loader(store, sampler, fields)(0, steps):
            for i, row in enumerate(batch["rows"].tolist()):
                found[row] = batch["images"][i].numpy().tobytes(), batch["syn_texts"][i].tolist()
        return found

    assert by_row(8) == by_row(3) == by_row(24)


def test_ranks_share_out_one_batch(store):
    fields = all_fields()[:6]
    whole = Loader(store, shuffled(8), fields)
    ranks = [Loader(store, shuffled(4, rank=r, world=2), fields) for r in range(2)]
    for step in range(4):
        expected = whole.load(step)
        parts = [r.load(step) for r in ranks]
        for key in ("rows", "images", "syn_texts", "topk_p"):
            assert torch.equal(torch.cat([p[key] for p in parts]), expected[key])
    assert ranks[0].describe() == ranks[1].describe()


def test_augmentation_differs_between_epochs_and_seeds(store):
    field = Images(size=16, plain=CONFIG)
    sampler = SequentialSampler(ROWS, ROWS)

    @dataclass
    class Twice:
        def batch(self, step: int) -> Batch:
            return Batch(rows=np.arange(6), view=0, epoch=step, step=step)

        def describe(self) -> dict:
            return {}

        steps_per_epoch = None

    loader = Loader(store, Twice(), [field])
    assert not torch.equal(loader.load(0)["images"], loader.load(1)["images"])
    other = Loader(store, Twice(), [field], seed=1)
    assert not torch.equal(loader.load(0)["images"], other.load(0)["images"])
    assert sampler.steps_per_epoch == 1


# --- captions -------------------------------------------------------------------------------------


def test_captions_by_epoch_go_through_all_places(store):
    fields = [
        Captions(captioner="coca", tokenize=WordCounter(), pick="epoch"),
        TeacherEmbeddings(teachers=["tb"], images=False, texts=False, captions="coca"),
    ]
    loader = Loader(store, shuffled(), fields)
    places = []
    for batch in loader(0, 18):
        picked = set((batch["syn_texts"][:, 3] - 1).tolist())
        assert len(picked) == 1
        rows = batch["rows"].numpy()
        expected = stored("tb", made.embedding("tb", "caption", min(picked), rows))
        np.testing.assert_array_equal(batch["teacher_syn_texts"][0].numpy(), expected)
        places.append(min(picked))
    assert [len(set(places[e : e + 3])) for e in range(0, 18, 3)] == [1] * 6
    assert sorted(places[0:9:3]) == sorted(places[9:18:3]) == [0, 1, 2]


def test_random_captions_are_uniform(store):
    loader = Loader(store, shuffled(), [Captions(captioner="coca", tokenize=WordCounter())])
    picked = torch.cat([b["syn_texts"][:, 3] for b in loader(0, 90)]) - 1
    counts = np.bincount(picked.numpy(), minlength=3)
    assert ((counts - 240) ** 2 / 240).sum() < 9.2  # chi square, 2 degrees, 1%


@pytest.mark.parametrize("pick", ["random", "epoch"])
def test_only_the_picked_captions_are_read(store, monkeypatch, pick):
    fields = [
        Captions(captioner="coca", tokenize=WordCounter(), pick=pick),
        TeacherEmbeddings(teachers=["ta", "tb"], images=False, texts=False, captions="coca"),
    ]
    loader = Loader(store, shuffled(), fields, workers=0)
    takes, take = [], Store.take

    def watch(self, rows, columns):
        takes.append((set(np.asarray(rows).tolist()), list(columns)))
        return take(self, rows, columns)

    monkeypatch.setattr(Store, "take", watch)
    picked: dict[int, set[int]] = {s: set() for s in range(3)}
    for batch in loader(0, 3):  # an epoch, which is one read
        for j, row in enumerate(batch["rows"].tolist()):
            s = int(batch["syn_texts"][j, 3]) - 1
            picked[s].add(row)
            for teacher, values in zip(("ta", "tb"), batch["teacher_syn_texts"], strict=True):
                said = made.embedding(teacher, "caption", s, np.array([row]))
                np.testing.assert_array_equal(values[j].numpy(), stored(teacher, said)[0])
    read = [(rows, c) for rows, names in takes for c in names if ".caption." in c]
    used = [s for s in range(3) if picked[s]]
    assert len(used) == (3 if pick == "random" else 1)
    assert sorted(c for _, c in read) == [
        f"{t}.caption.coca.{s}" for t in ("ta", "tb") for s in used
    ]
    assert all(rows == picked[int(c[-1])] for rows, c in read)
    # both teachers' columns come with one take
    assert sum(any(".caption." in c for c in names) for _, names in takes) == len(used)


def test_bad_input_long_captions_are_cut_and_counted(store):
    tokenize = WordCounter()
    fields = [Texts(tokenize=tokenize), Captions(captioner="coca", tokenize=tokenize)]
    loader = Loader(store, shuffled(), fields, workers=3)
    batches = list(loader(0, 3))
    assert loader.stats.batches == 3
    assert loader.stats.rows == ROWS
    assert loader.stats.truncated["texts"] == len([r for r in range(ROWS) if r % 5 == 0])
    long = sum(int((b["syn_texts"][:, 3] == 3).sum()) for b in batches)
    assert loader.stats.truncated["syn_texts"] == long > 0


# --- dataset reinforcement ------------------------------------------------------------------------


def test_plain_images_come_with_one_hot_targets(store):
    sampler = shuffled(view_order="epoch")
    fields = [Images(size=16, view_set="main"), TopK(teacher="ens", mark_plain=True)]
    mixed, always = Loader(store, sampler, fields, p=0.7), Loader(store, sampler, fields)
    never = Loader(store, sampler, fields, p=0.0)
    total = 0
    for step in range(60):
        a, b, c = mixed.load(step), always.load(step), never.load(step)
        plain = a["plain"]
        total += int(plain.sum())
        assert not b["plain"].any()
        assert c["plain"].all()
        for key in ("images", "topk_p", "topk_id"):
            assert torch.equal(a[key][~plain], b[key][~plain])
            assert torch.equal(a[key][plain], c[key][plain])
        assert torch.equal(a["topk_id"][plain, 0], a["rows"][plain] % CLASSES)
        assert a["topk_p"][plain].tolist() == [[1, 0, 0]] * int(plain.sum())
        assert all(len(set(ids)) == 3 for ids in a["topk_id"].tolist())
        assert int(a["topk_id"].max()) < CLASSES
        assert not torch.equal(b["images"], c["images"])
    assert abs(total / (60 * 8) - 0.3) < 0.06
    assert mixed.stats.plain == total


def test_one_hot_targets_are_one_hot_for_the_objective():
    from understudy.data.loader_topk import one_hot
    from understudy.objectives.topk import densify

    labels = np.arange(7)
    for k in (1, 3, 7):
        p, ids = (torch.from_numpy(a) for a in one_hot(labels, k))
        assert torch.equal(densify(p, ids, 7), torch.eye(7))


def test_fresh_replay_keeps_targets_and_draws_other_crops(store):
    fields = [TeacherEmbeddings(teachers=["ta"]), TopK(teacher="ens")]
    kept = Loader(store, shuffled(), [Images(size=16, view_set="main"), *fields])
    broken = Loader(store, shuffled(), [Images(size=16, view_set="main", replay="fresh"), *fields])
    a, b, later = kept.load(0), broken.load(0), broken.load(9)
    assert torch.equal(a["teacher_images"][0], b["teacher_images"][0])
    assert torch.equal(a["topk_p"], b["topk_p"])
    different = (a["images"] != b["images"]).flatten(1).any(1)
    assert different.all()
    row = int(b["rows"][0])
    again = (later["rows"] == row).nonzero()
    assert not len(again) or not torch.equal(later["images"][again[0, 0]], b["images"][0])
    same(b, broken.load(0))
    mixing = Loader(
        store, shuffled(num_views=1), [Images(size=16, view_set="mixed", replay="fresh")]
    )
    exact = Loader(store, shuffled(num_views=1), [Images(size=16, view_set="mixed")])
    assert not torch.equal(mixing.load(0)["images"], exact.load(0)["images"])


def test_shuffled_targets_are_one_permutation(store):
    rows = np.arange(4, 20)
    sampler = ShuffledSampler(rows, 8, 3, num_views=VIEWS)
    fields = [
        TopK(teacher="ens", shuffle_targets=True),
        TeacherEmbeddings(teachers=["ta"], view_set="main", shuffle_targets=True),
    ]
    loader = Loader(store, sampler, [Images(size=16, view_set="main"), *fields])
    whose: dict[int, int] = {}
    known = stored("ta", made.embedding("ta", "text", 0, np.arange(ROWS)))
    for step, batch in enumerate(loader(0, 6)):
        view = sampler.batch(step).view
        for i, row in enumerate(batch["rows"].tolist()):
            text = batch["teacher_texts"][0][i].numpy()
            other = int(np.argmax((known == text).all(1)))
            assert whose.setdefault(row, other) == other  # the same in every epoch
            p = made.probabilities(view, np.array([other]))[1][0]
            np.testing.assert_array_equal(batch["topk_id"][i].numpy(), p)
            assert batch["images"].shape == (8, 3, 16, 16)
    assert sorted(whose.values()) == sorted(whose) == rows.tolist()
    assert sum(a != b for a, b in whose.items()) > 8


# --- sizes ----------------------------------------------------------------------------------------


def test_another_size_is_a_replay_at_that_size(store):
    field = Images(size=24, view_set="main", rescale=True)
    batch = Loader(store, shuffled(), [field]).load(0)
    plan = shuffled().batch(0)
    pipeline = ViewPipeline(CONFIG)
    images = [made.image(int(r)) for r in plan.rows]
    params = pipeline.sample([i.shape[:2] for i in images], plan.rows + 1000 * plan.view)
    views = pipeline.apply(images, params, size=24, rescale=True)
    expected = views.transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(batch["images"].numpy(), expected)


def test_a_sampler_may_choose_the_size(store):
    class Sized(ShuffledSampler):
        def batch(self, step: int) -> Batch:
            batch = super().batch(step)
            return Batch(batch.rows, batch.view, batch.epoch, step, size=(12, 16)[step % 2])

    sampler = Sized(ROWS, 8, 3, num_views=VIEWS)
    loader = Loader(store, sampler, [Images(size=16, view_set="main", rescale=True)])
    assert [b["images"].shape[-1] for b in loader(0, 3)] == [12, 16, 12]


# --- workers --------------------------------------------------------------------------------------


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("understudy-loader")]


def test_prefetch_is_bounded_and_ends_with_the_iterator(store, monkeypatch):
    loader = Loader(store, shuffled(), [Labels()], workers=2, ahead=3)
    begun: list[int] = []
    finish = loader.finish
    monkeypatch.setattr(loader, "finish", lambda p: (begun.append(p[0].step), finish(p))[1])
    batches = loader(0, 50)
    for taken in range(1, 5):
        next(batches)
        assert len(begun) <= taken + 3
    batches.close()
    assert not loader_threads()
    assert len(begun) <= 8
    assert list(loader(5, 0)) == []
    for _ in loader(0, 4):
        break  # a dropped iterator ends its workers too
    assert not loader_threads()


def test_the_loop_trains_from_a_loader(store, tmp_path):
    from torch import nn

    from understudy.train.classifier_steps import TopKStep
    from understudy.train.config import TrainConfig
    from understudy.train.loop import fit

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head = nn.Linear(3 * 16 * 16, CLASSES)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head(images.flatten(1))}

    def run(out: str, steps: int, seconds_limit_s: float = 0.0):
        loader = Loader(
            store, shuffled(), [Images(size=16, view_set="main"), TopK(teacher="ens"), Labels()]
        )
        config = TrainConfig(
            steps=12,
            batch_size=8,
            lr=1e-2,
            accumulate=2,
            checkpoint_every=steps,
            seconds_limit_s=seconds_limit_s,
        )
        return fit(Net(), TopKStep(num_classes=CLASSES), loader, config, tmp_path / out)

    whole = run("whole", 4)
    assert whole.steps == 12
    assert whole.metrics["train/loss"] > 0
    run("parts", 4, seconds_limit_s=1e-9)
    parts = run("parts", 4)
    assert parts.metrics["train/loss"] == whole.metrics["train/loss"]


def test_loaders_pickle_and_describe_plainly(store):
    loader = Loader(store, shuffled(), all_fields(), seed=4, p=1.0)
    found = loader.describe()
    assert json.loads(json.dumps(found)) == found
    assert pickle.loads(pickle.dumps(loader)).describe() == found
    assert Loader(store, shuffled(), all_fields(), seed=4, workers=0).describe() == found
    assert Loader(store, shuffled(), all_fields(), seed=5).describe() != found
    assert found["columns"]["ta.text"]["fingerprint"] == "hash-ta"
    assert found["columns"]["image"] is None
    assert "words-6" in json.dumps(found)


# --- bad input while reading ----------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "mode"), [(0, "threads"), (2, "threads"), (1, "processes")])
def test_bad_input_damaged_image_is_named_in_the_consumer(tmp_path, workers, mode):
    rows = made.payload(12)
    rows["image"][7] = b"\xff\xd8\xff broken"
    store = Store.create(tmp_path / "s", [rows])
    sampler = SequentialSampler(12, 3)
    loader = Loader(store, sampler, [Images(size=16)], workers=workers, mode=mode)
    batches = loader(0, 4)
    assert [next(batches)["rows"][0].item() for _ in range(2)] == [0, 3]
    with pytest.raises(DataError, match=r"row 7 \(id 'sample-7'\): not a JPEG file"):
        next(batches)
    assert not loader_threads()


def test_bad_input_image_resized_after_reinforcement(tmp_path):
    rows = made.payload()
    store = Store.create(tmp_path / "s", [rows])
    made.fill_views(store, CONFIG)
    rows["image"] = [made.encoded(made.image(r)[::4, ::4]) for r in range(ROWS)]
    small = Store.create(tmp_path / "small", [rows])
    for k in range(VIEWS):
        values = store.take(range(ROWS), [f"view.main.{k}"]).column(0).combine_chunks()
        made.fill(small, f"view.main.{k}", values, store.card(f"view.main.{k}").config)
    loader = Loader(small, shuffled(), [Images(size=16, view_set="main")])
    with pytest.raises(DataError, match=r"row \d+ \(id 'sample-\d+'\) is 8x\d+ .*resized after"):
        loader.load(0)


def test_bad_input_partner_row_missing(tmp_path):
    store = Store.create(tmp_path / "s", [made.payload()])
    pipeline = ViewPipeline(MIXING)
    sizes = [made.image(r).shape[:2] for r in range(ROWS)]
    params = pipeline.sample(sizes, range(ROWS), (np.full(ROWS, 99), sizes))
    config = {**MIXING.to_dict(), "set": "m", "k": 0}
    made.fill(store, "view.m.0", made.fixed_list(pipeline.pack(params)), config)
    loader = Loader(store, shuffled(num_views=1), [Images(size=16, view_set="m")])
    message = r"row \d+ \(id 'sample-\d+'\): .*mixes in row 99 \(id2\), but the store has 24 rows"
    with pytest.raises(DataError, match=message):
        loader.load(0)


def test_bad_input_value_missing_in_a_payload_row(tmp_path):
    rows = made.payload(6)
    rows["text"][4] = None
    store = Store.create(tmp_path / "s", [rows])
    loader = Loader(store, SequentialSampler(6, 6), [Texts(tokenize=WordCounter())])
    with pytest.raises(DataError, match=r"column 'text' has no value in row 4 \(id 'sample-4'\)"):
        loader.load(0)


def test_bad_input_captions_that_do_not_match_their_embeddings(tmp_path):
    store = Store.create(tmp_path / "s", [made.payload()])
    texts = [["a", "b"]] * ROWS
    texts[5], texts[6] = ["a"], []
    made.fill(store, "caption.coca", made.pa.array(texts), {})
    sampler = SequentialSampler(ROWS, 12)
    field = Captions(captioner="coca", tokenize=WordCounter())
    with pytest.raises(
        DataError, match=r"row 6 \(id 'sample-6'\) has 0 captions, expected at least"
    ):
        Loader(store, sampler, [field]).load(0)
    values = made.encode_embeddings(np.zeros((ROWS, 6), np.float32))
    for s in range(2):
        made.fill(store, f"ta.caption.coca.{s}", values, made.embedding_config([6]))
    teacher = TeacherEmbeddings(teachers=["ta"], images=False, texts=False, captions="coca")
    with pytest.raises(DataError, match=r"row 5 .*has 1 captions, expected 2, one an embedding"):
        Loader(store, sampler, [field, teacher]).load(0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"place": 0}, "'ta.caption.coca.1' is about place 0, expected 1"),
        ({"captioner": "blip"}, "'ta.caption.coca.1' is about captioner 'blip', expected 'coca'"),
        ({"captions": "new"}, r"differs in config\.captions \('new'\) from the captions before"),
        ({"shape": [3, 2]}, r"differs in config\.shape \(\[3, 2\]\) from the captions before"),
    ],
)
def test_bad_input_caption_columns_that_do_not_belong_together(tmp_path, config, message):
    store = Store.create(tmp_path / "s", [made.payload()])
    values = made.encode_embeddings(np.zeros((ROWS, 6), np.float32))
    for s, more in enumerate(({}, config)):
        about = {**made.embedding_config([6]), "captioner": "coca", "place": s, "captions": "old"}
        made.fill(store, f"ta.caption.coca.{s}", values, {**about, **more})
    teacher = TeacherEmbeddings(teachers=["ta"], images=False, texts=False, captions="coca")
    with pytest.raises(CardError, match=message):
        Loader(store, SequentialSampler(ROWS, 12), [teacher])


def test_bad_input_caption_without_an_embedding(tmp_path):
    store = Store.create(tmp_path / "s", [made.payload()])
    values = made.encode_embeddings(np.zeros((ROWS, 6), np.float32))
    made.fill(store, "ta.caption.coca.0", values, made.embedding_config([6]))
    made.fill(store, "ta.caption.coca.1", values[:20], made.embedding_config([6]))
    teacher = TeacherEmbeddings(teachers=["ta"], images=False, texts=False, captions="coca")
    with pytest.raises(DataError, match=r"ta.caption.coca.1' is not filled in 4 .*first in row 20"):
        Loader(store, SequentialSampler(ROWS, 12), [teacher])
    rows = SequentialSampler(np.arange(20), 10)
    assert len(Loader(store, rows, [teacher]).load(0)["teacher_syn_texts"][0]) == 10


def test_bad_input_worker_that_dies(store):
    loader = Loader(store, shuffled(), [made.Deadly()], workers=1, mode="processes")
    with pytest.raises(DataError, match="a loader worker ended without an answer"):
        list(loader(0, 3))


def test_bad_input_fields_that_do_not_pickle(store):
    field = Texts(tokenize=lambda texts: np.zeros((len(texts), 2), int))
    loader = Loader(store, shuffled(), [field], mode="processes")
    with pytest.raises(DataError, match="cannot be sent to worker processes"):
        list(loader(0, 3))


def test_bad_input_forked_workers(store):
    loader = Loader(store, shuffled(), [Labels()])
    with pytest.raises(ConfigError, match="cannot be forked, where Lance crashes"):
        torch_loader(loader, 0, 2, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(ConfigError, match="'shuffle' belongs to the loader's sampler"):
        torch_loader(loader, 0, 2, shuffle=True)
