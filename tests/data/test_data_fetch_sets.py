"""Stores of fetched sets, from small made-up folders and, where they are cached, the real ones."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from understudy.core.errors import ConfigError, DataError
from understudy.data import fetch, fetch_clipart, fetch_emoji, fetch_sets
from understudy.data.decode import decode


def rows_of(loaded):
    return [row for batch in loaded[0] for row in batch.to_pylist()]


# Emoji


def _entry(i, category, subcategory, **more):
    return {
        "name": f"THING {i}",
        "unified": f"{i:04X}",
        "image": f"{i:04x}.png",
        "short_names": [f"thing_{i}", f"item_{i}"],
        "category": category,
        "subcategory": subcategory,
        "sort_order": 100 - i,
        "added_in": "0.6",
        "has_img_google": True,
        "has_img_twitter": i != 3,
        **more,
    }


@pytest.fixture
def emoji_folders(tmp_path):
    entries = [_entry(i, "Things", f"group-{i % 5}") for i in range(19)]
    variant = {
        "unified": "0001-1F3FD",
        "image": "0001-1f3fd.png",
        "added_in": "13.1",
        "has_img_google": True,
        "has_img_twitter": True,
    }
    entries.append(
        _entry(50, "People", "hands", added_in="1.0", skin_variations={"1F3FD": variant})
    )
    folders = {}
    for vendor in ("google", "twitter"):
        folder = tmp_path / vendor
        (folder / "images").mkdir(parents=True)
        (folder / "emoji.json").write_text(json.dumps(entries))
        for name in [e["image"] for e in entries] + [variant["image"]]:
            image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
            image.putpixel((1, 2), (200, 10, 10, 255))
            image.save(folder / "images" / name)
        folders[f"emoji-{vendor}"] = folder
    return folders


def test_emoji_rows(emoji_folders):
    rows = rows_of(fetch_emoji.to_store(emoji_folders))
    assert len(rows) == 21 + 20  # twitter lacks one
    first = next(r for r in rows if r["id"] == "google/0007")
    assert (first["text"], first["name"]) == ("thing 7, item 7", "thing 7")
    assert first["keywords"] == ["thing", "7", "item"]
    assert (first["added_in"], first["time"], first["skin_tone"]) == ("0.6", 0, "")
    pixels = decode(first["image"])
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[2, 1].tolist() == [200, 10, 10]
    toned = next(r for r in rows if r["skin_tone"])
    assert toned["text"] == "thing 50, item 50: medium skin tone"
    assert (toned["added_in"], toned["time"]) == ("13.1", 6)
    labels = {(r["name"].split(":")[0], r["label"]) for r in rows}
    assert len(labels) == 20  # one label a concept, the same for both vendors
    plain = rows_of(fetch_emoji.to_store(emoji_folders, skin_tones=False))
    assert len(plain) == 39


def test_emoji_split_holds_out_whole_subcategories(emoji_folders):
    rows = rows_of(fetch_emoji.to_store(emoji_folders, val=0.25, test=0.25))
    groups = {}
    for row in rows:
        groups.setdefault((row["category"], row["subcategory"]), set()).add(row["split"])
    kinds = [frozenset(g) for g in groups.values()]
    seen, held = frozenset({"train", "vendor"}), frozenset({"test", "vendor-test"})
    assert set(kinds) == {seen, held, frozenset({"val", "vendor-test"})}
    assert {r["vendor"] for r in rows if r["split"] in ("train", "val", "test")} == {"google"}
    assert {r["vendor"] for r in rows if r["split"].startswith("vendor")} == {"twitter"}
    count = Counter(r["split"] for r in rows)
    assert count["test"] <= 0.25 * 19


def test_emoji_of_one_name_are_one_class(emoji_folders):
    for folder in emoji_folders.values():
        listed = json.loads((folder / "emoji.json").read_text())
        listed[4]["name"] = listed[3]["name"]
        (folder / "emoji.json").write_text(json.dumps(listed))
    batches, meta = fetch_emoji.to_store(emoji_folders)
    rows = rows_of((batches, meta))
    assert len(set(meta["classes"])) == len(meta["classes"]) == 19
    assert all(meta["classes"][r["label"]] == r["name"].split(":")[0] for r in rows)


def test_emoji_periods_follow_the_versions():
    versions = ["0.6", "0.7", "1.0", "2.0", "3.0", "4.0", "5.0", "11.0", "12.1", "13.0", "16.0"]
    assert [fetch_emoji.period(v) for v in versions] == [0, 0, 1, 2, 3, 3, 4, 5, 5, 6, 6]


def test_bad_input_emoji(emoji_folders, tmp_path):
    with pytest.raises(ConfigError, match=r"val \+ test must lie in \[0, 1\)"):
        fetch_emoji.to_store(emoji_folders, val=0.5, test=0.5)
    broken = emoji_folders["emoji-google"] / "images" / "0002.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0002.png: not a picture that can be read"):
        rows_of(fetch_emoji.to_store(emoji_folders))


# CIFAR-10, groceries


def test_bad_input_cifar10(tmp_path):
    Image.new("RGB", (1024, 3)).save(tmp_path / "test_batch.png")
    with pytest.raises(DataError, match=r"test_batch.png: expected 10,000 rows of 1,024 pixels"):
        fetch_sets.cifar10_arrays(tmp_path, "test")
    with pytest.raises(DataError, match=r"data_batch_1.png: not a picture"):
        fetch_sets.cifar10_arrays(tmp_path, "train")
    with pytest.raises(ConfigError, match="'train' must lie in 0 to 50,000"):
        fetch_sets.cifar10({"cifar10": tmp_path}, train=60_000)


def test_groceries(tmp_path):
    table = pa.table(
        {
            "dataset": ["train", "test"],
            "coarse_cat": ["Melon", "Apple"],
            "finegrained_cat": ["Galia-Melon", "Royal-Gala"],
            "image_data": [b"\xff\xd8\xff1", b"\xff\xd8\xff2"],
        }
    )
    pq.write_table(table, tmp_path / "groceries.parquet")
    batches, meta = fetch_sets.groceries({"groceries": tmp_path})
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert meta == {"classes": ["galia melon", "royal gala"], "coarse_classes": ["apple", "melon"]}
    assert [(r["label"], r["coarse_label"], r["split"]) for r in rows] == [
        (0, 1, "train"),
        (1, 0, "test"),
    ]
    assert rows[1]["text"] == "a photo of a royal gala"
    assert fetch_sets.with_article("orange") == "an orange"


def test_bad_input_groceries(tmp_path):
    (tmp_path / "groceries.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not the expected Parquet file"):
        fetch_sets.groceries({"groceries": tmp_path})


# Clip art

SVG = """<svg><metadata id="m"><rdf:RDF><cc:Work>
<dc:creator><cc:Agent><dc:title>Somebody</dc:title></cc:Agent></dc:creator>
<dc:title>A &amp; B  frogs</dc:title><dc:description>Two</dc:description>
<dc:subject><rdf:Bag><rdf:li>frog</rdf:li><rdf:li></rdf:li><rdf:li>pond</rdf:li><rdf:li>frog</rdf:li>
</rdf:Bag></dc:subject></cc:Work></rdf:RDF></metadata><path/></svg>"""


def test_svg_metadata():
    assert fetch_clipart.read_metadata(SVG.encode()) == ("A & B frogs", ["frog", "pond"], "Two")
    assert fetch_clipart.read_metadata(b"<svg/>") == ("", [], "")
    empty = b"<metadata><dc:title/><dc:subject><rdf:Bag/></dc:subject></metadata>"
    assert fetch_clipart.read_metadata(empty) == ("", [], "")


def test_clipart_rows(tmp_path):
    sizes = {"a/frog": (600, 300), "a/copy": (600, 300), "b/small": (20, 30), "b/untitled": (4, 4)}
    for i, (name, size) in enumerate(sizes.items()):
        for kind in ("png", "svg"):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
        colour = (0, 120, 0, 255) if name.startswith("a") else (i, 0, 0, 0)
        Image.new("RGBA", size, colour).save(tmp_path / "png" / f"{name}.png")
        if name != "b/untitled":
            (tmp_path / "svg" / f"{name}.svg").write_text(SVG)
    header = bytearray((tmp_path / "png" / "b" / "small.png").read_bytes())
    header[16:20] = (30_000).to_bytes(4, "big")
    header[20:24] = (30_000).to_bytes(4, "big")
    (tmp_path / "png" / "b" / "huge.png").write_bytes(header)
    (tmp_path / "svg" / "b" / "huge.svg").write_text(SVG)
    rows = rows_of(fetch_clipart.to_store({"openclipart": tmp_path}))
    assert [r["id"] for r in rows] == ["openclipart/a/copy", "openclipart/b/small"]
    assert decode(rows[0]["image"]).shape == (128, 256, 3)
    assert (decode(rows[1]["image"]) == 255).all()
    assert rows[0]["text"] == "a & b frogs"
    assert rows[0]["keywords"] == ["frog", "pond"]


def test_bad_input_clipart(tmp_path):
    with pytest.raises(DataError, match="no pictures; fetch 'openclipart' again"):
        rows_of(fetch_clipart.to_store({"openclipart": tmp_path}))


# The real ones


@pytest.mark.asset("emoji")
def test_real_emoji():
    folders = {n: fetch.fetch(n) for n in ("emoji-google", "emoji-twitter")}
    batches, meta = fetch_emoji.to_store(folders)
    rows = next(batches).to_pylist()
    assert (rows[0]["id"], rows[0]["name"]) == ("google/1f600", "grinning face")
    assert decode(rows[0]["image"]).shape == (64, 64, 3)
    assert len(meta["classes"]) == 1910
    entries = json.loads((folders["emoji-google"] / "emoji.json").read_text())
    splits = fetch_emoji.split_subcategories(entries, 0.1, 0.2, 0)
    count = Counter(splits[e["category"], e["subcategory"]] for e in entries)
    assert 0.12 < count["test"] / len(entries) < 0.2
    assert len(list((folders["emoji-google"] / "images").iterdir())) == 3786


@pytest.mark.asset("cifar10")
def test_real_cifar10():
    images, labels = fetch_sets.cifar10_arrays(fetch.fetch("cifar10"), "test")
    assert labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]
    assert np.bincount(labels).tolist() == [1000] * 10
    assert np.abs(images.mean() / 255 - 0.4734) < 0.01  # the known mean of CIFAR-10


@pytest.mark.asset("groceries")
def test_real_groceries():
    batches, meta = fetch_sets.groceries({"groceries": fetch.fetch("groceries")})
    splits = Counter(s for b in batches for s in b.column("split").to_pylist())
    assert splits == {"train": 675, "val": 57, "test": 1322}
    assert (len(meta["classes"]), len(meta["coarse_classes"])) == (14, 5)


@pytest.mark.asset("openclipart")
def test_real_openclipart():
    root = fetch.fetch("openclipart")
    svg = sorted((root / "svg" / "animals" / "mammals").rglob("*.svg"))
    found = [fetch_clipart.read_metadata(path.read_bytes()) for path in svg]
    assert len(svg) > 100
    assert sum(bool(title and words) for title, words, _ in found) > 0.9 * len(svg)
    assert sum(1 for _ in (root / "png").rglob("*.png")) == 8121


@pytest.mark.asset("efficientnet-lite0", "efficientnet-lite2")
def test_real_efficientnet_weights():
    import torch

    for name, tensors in (("efficientnet-lite0", 296), ("efficientnet-lite2", 386)):
        weights = torch.load(fetch.fetch(name), map_location="cpu", weights_only=True)
        assert len(weights) == tensors
        assert tuple(weights["_fc.weight"].shape) == (1000, 1280)


@pytest.mark.asset("minilm")
def test_real_minilm_files():
    from safetensors import safe_open

    folder = fetch.fetch("minilm")
    with safe_open(folder / "model.safetensors", "pt") as opened:
        assert opened.get_slice("embeddings.word_embeddings.weight").get_shape() == [30522, 384]
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 6
