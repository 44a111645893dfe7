"""What the released generator of reinforced sets got wrong, read back from exported shards.

The checks read tars with `tarfile` and `numpy` alone, as another trainer would.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from reinforce_functions import SMALL, small_teachers
from reinforce_world import TEXTS, VIEWS, function_teacher, make_store, picture
from test_reinforce_resume import run_and_kill

from understudy.data.exporters import export
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.data.view_reference import from_reference_lists
from understudy.data.views import ViewPipeline
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers.function import FunctionTeacher

BF16 = 2.0**-7


def read_tars(paths) -> dict[str, dict[str, bytes]]:
    """Return the files of every sample by extension."""
    found: dict[str, dict[str, bytes]] = {}
    for path in paths:
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = archive.extractfile(member).read()
    return found


def _tiny_store(path, count: int) -> Store:
    image = [picture(i) for i in range(12)]
    rows = {
        "id": [f"s{i:04d}" for i in range(count)],
        "image": [image[i % 12] for i in range(count)],
        "text": [TEXTS[i % 12] for i in range(count)],
    }
    return Store.create(path, [rows])


def test_a_shard_of_1000_with_batch_64_has_all_embeddings_and_parameters(tmp_path):
    store = _tiny_store(tmp_path / "s", 1000)
    crop = ViewConfig(size=48, transforms={"random_resized_crop": {}})
    config = ReinforceConfig(
        num_views=2, views=crop, batch_size=64, unit_rows=1000, captions=2, dtype="bfloat16"
    )
    reinforce(store, config, teachers=small_teachers())
    (path,) = export(store, tmp_path / "out", rows_per_shard=1000)
    samples = read_tars([path])
    assert len(samples) == 1000
    manifest = [json.loads(x) for x in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert manifest[0]["shard"] == path.name
    assert manifest[0]["num_uids"] == 1000
    described = json.loads((tmp_path / "out/config.json").read_text())
    assert "random_resized_crop" in described["reinforce"]["image_augmentation"]
    for key, files in samples.items():
        arrays = np.load(io.BytesIO(files["npz"]))
        assert arrays["image_emb"].shape == (2, 27), key
        assert arrays["text_emb"].shape == (3, 27), key
        for values in arrays.values():
            assert np.abs(np.linalg.norm(values, axis=-1) - 1).max() < 2e-2, key
        assert len(json.loads(files["paug.json"])["param_aug"]) == 2, key


def test_exported_parameters_replay_to_the_stored_embeddings(tmp_path):
    # the released generator computed the parameters and never wrote them
    store = make_store(tmp_path / "s", 30)
    config = ReinforceConfig(num_views=3, views=VIEWS, batch_size=8, dtype="bfloat16")
    teacher = function_teacher()
    reinforce(store, config, teachers={"colours": teacher})
    samples = read_tars(export(store, tmp_path / "out", rows_per_shard=11, embeddings="npz"))
    pipeline = ViewPipeline(VIEWS)
    from understudy.data.decode import decode

    worst = 0.0
    for files in samples.values():
        image = decode(next(files[e] for e in ("png", "jpg") if e in files))
        params = from_reference_lists(json.loads(files["paug.json"])["param_aug"], VIEWS)
        stored = np.load(io.BytesIO(files["npz"]))["image_emb"]
        fresh = teacher.embed_images(pipeline.apply([image] * 3, params))
        worst = max(worst, float((np.abs(fresh - stored) - BF16 * np.abs(fresh)).max()))
        # another view's parameters would not do
        assert np.abs(fresh[0] - stored[1]).max() > 1e-3
    assert worst < 1e-3


def test_killed_and_resumed_gives_the_same_bytes(tmp_path):
    whole = make_store(tmp_path / "whole", 40)
    reinforce(whole, SMALL, teachers=small_teachers())
    path = tmp_path / "killed"
    make_store(path, 40)
    for calls, pause in ((14, 0.004),):
        assert not run_and_kill(path, calls, pause)
    kept = Store.open(path)
    reinforce(kept, SMALL, teachers=small_teachers())
    pairs = zip(
        export(whole, tmp_path / "a", rows_per_shard=16, names="content"),
        export(Store.open(path), tmp_path / "b", rows_per_shard=16, names="content"),
        strict=True,
    )
    for first, second in pairs:
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


def test_the_ledger_is_in_seconds_and_adds_up(tmp_path):
    store = make_store(tmp_path / "s", 20)
    report = reinforce(store, SMALL, teachers=small_teachers())
    cards = [store.card(column).seconds for column in report.columns]
    assert sum(cards) == pytest.approx(report.unit_seconds, rel=1e-6)
    assert 0 < report.unit_seconds <= report.wall_seconds


def test_a_captioner_that_says_nothing_is_counted_and_replaced(tmp_path):
    def silent(images, num, seeds):
        return [["", f"a thing {seed % 7}"][:num] for seed in seeds]

    store = make_store(tmp_path / "s", 6)
    config = replace(SMALL, captions=2, caption_retries=0)
    report = reinforce(store, config, teachers={"cap": FunctionTeacher("cap", {"caption": silent})})
    assert report.counts == {"cap: empty": 6, "cap: replaced": 6}
    mended = store.card("caption.cap").facts["mended"]
    assert sum(part["empty"] for part in mended.values()) == 6
    rows = store.take(range(6), ["text", "caption.cap"]).to_pylist()
    assert all(row["text"] in row["caption.cap"] for row in rows)


def test_teachers_with_different_normalisation_each_get_their_own(tmp_path):
    # the released generator asserts equal statistics; here each teacher prepares its own input
    from reinforce_world import nano_clip

    from understudy.reinforce.teachers.own import OwnTeacher

    store = make_store(tmp_path / "s", 6)
    plain = nano_clip(1, **{"preprocess.mean": (0.0,) * 3, "preprocess.std": (1.0,) * 3})
    models = {"clip": nano_clip(0), "plain": plain}
    teachers = {name: OwnTeacher(name, model) for name, model in models.items()}
    views = ViewConfig(size=48, transforms={"random_resized_crop": {}})
    reinforce(store, ReinforceConfig(num_views=1, views=views, dtype="float32"), teachers=teachers)
    for name, model in models.items():
        alone = make_store(tmp_path / name, 6)
        config = ReinforceConfig(num_views=1, views=views, dtype="float32")
        reinforce(alone, config, teachers={name: OwnTeacher(name, model)})
        column = f"{name}.image.main.0"
        assert np.abs(alone.array(column) - store.array(column)).max() < 1e-5
    assert models["clip"].preprocess != models["plain"].preprocess
