"""Stored views are replayed and compared with the checksums in their cards."""

from __future__ import annotations

import dataclasses

import loader_store as made
import numpy as np
import pytest
from loader_store import CONFIG, MIXING, ROWS

from understudy.core.errors import CardError
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.data.views import ViewPipeline, verify_views


def store_with_checks(
    path, config: ViewConfig, change: int | None = None, backend: dict | None = None, shift: int = 1
) -> Store:
    """Write views with checksums of every third row; row `change` gets another image after that."""
    payload = made.payload()
    images = [made.image(r) for r in range(ROWS)]
    pipeline = ViewPipeline(config)
    rows = np.arange(ROWS)
    sizes = np.array([i.shape[:2] for i in images])
    partners, mixed = None, None
    if config.mixes:
        chosen = pipeline.draw_partners(rows, ROWS, rows)
        partners = (chosen, sizes[chosen])
        mixed = [images[r] for r in chosen]
    params = pipeline.sample(sizes, rows, partners)
    checked = rows[::3]
    views = pipeline.apply(images, params, partners=mixed)[checked]
    if change is not None:
        altered = np.clip(images[change].astype(int) + shift, 0, 255).astype(np.uint8)
        payload["image"][change] = made.encoded(altered)
    store = Store.create(path, [payload])
    made.fill(
        store,
        "view.main.0",
        made.fixed_list(pipeline.pack(params)),
        {**config.to_dict(), "set": "main", "k": 0},
        backend={**pipeline.backend, **(backend or {})},
        facts=pipeline.fingerprints(checked.tolist(), views),
    )
    return store


@pytest.mark.parametrize("config", [CONFIG, MIXING], ids=["plain", "mixing"])
def test_untouched_views_verify(tmp_path, config):
    assert verify_views(store_with_checks(tmp_path / "s", config), "main") == []


def test_bad_input_changed_image_is_named(tmp_path):
    store = store_with_checks(tmp_path / "s", CONFIG, change=6)
    problems = verify_views(store, "main")
    assert len(problems) == 1
    assert "view.main.0, row 6: replayed pixels differ from the reinforced view" in problems[0]
    assert verify_views(store, "main", rows=[3, 9]) == []


def test_a_tolerance_forgives_small_differences_only(tmp_path):
    crops = ViewConfig(size=16, transforms={"random_resized_crop": {}})
    store = store_with_checks(tmp_path / "s", crops, change=6)
    assert verify_views(store, "main", tolerance=2) == []
    far = store_with_checks(tmp_path / "far", crops, change=6, shift=40)
    assert "levels (tolerance 2)" in verify_views(far, "main", tolerance=2)[0]


def test_a_changed_library_is_named_beside_the_difference(tmp_path):
    store = store_with_checks(tmp_path / "s", CONFIG, change=6, backend={"pillow": "9.0"})
    assert "changed since: pillow 9.0 -> " in verify_views(store, "main")[0]


def test_bad_input_a_set_that_is_not_there(tmp_path):
    store = store_with_checks(tmp_path / "s", CONFIG)
    with pytest.raises(CardError, match=r"no views of set 'other' \(sets: main\)"):
        verify_views(store, "other")


def test_bad_input_no_checksums_and_other_orders_are_problems(tmp_path):
    store = Store.create(tmp_path / "s", [made.payload()])
    made.fill_views(store, CONFIG, count=1)
    assert verify_views(store, "main") == ["view.main.0: its card holds no checksums to verify."]
    values = store.take(range(ROWS), ["view.main.0"]).column(0).combine_chunks()
    card = store.card("view.main.0")
    config = {**card.config, "k": 1}
    made.fill(store, "view.main.1", values, config, backend={"order": ["mixup"]})
    assert "written with the order ['mixup']" in verify_views(store, "main")[1]
    assert dataclasses.asdict(card)["column"] == "view.main.0"
