"""Captions: written, mended, embedded, chosen by expression."""

from dataclasses import replace

import numpy as np
import pytest
from reinforce_world import VIEWS, function_teacher, make_store, rows, say, text_embedding

from understudy.core.errors import ConfigError, DataError
from understudy.data.knowledge import decode_embeddings
from understudy.data.store import Store
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.reinforce.verify import verify

BASE = ReinforceConfig(num_views=1, views=VIEWS, unit_rows=8, batch_size=12, captions=3)
WORDS = {"words": FunctionTeacher("words", {"embed_texts": text_embedding})}


def captions(store, name="cap"):
    return store.take(range(store.num_rows), [f"caption.{name}"]).column(0).to_pylist()


def embedded(store, count=3):
    """Return the embeddings of all captions, float32 [N, count, D]."""
    columns = [f"words.caption.cap.{s}" for s in range(count)]
    each = [decode_embeddings(store.array(c), store.card(c).config) for c in columns]
    return np.stack(each, axis=1)


def captioner(function=say, name="cap"):
    return {name: FunctionTeacher(name, {"caption": function})}


def test_captions_and_their_embeddings(tmp_path):
    store = make_store(tmp_path / "s", 20)
    report = reinforce(store, BASE, teachers={**captioner(), **WORDS})
    found = captions(store)
    assert all(len(row) == 3 for row in found)
    values = embedded(store)
    assert values.shape == (20, 3, 27)
    expected = WORDS["words"].embed_texts([t for row in found for t in row]).reshape(20, 3, 27)
    assert np.abs(values - expected).max() < 1e-3
    each = [f"words.caption.cap.{s}" for s in range(3)]
    assert report.columns == ["caption.cap", "words.text", *each]
    assert [store.card(c).config["place"] for c in each] == [0, 1, 2]
    # one job fills them all: their cards share its seconds
    assert len({store.card(c).seconds for c in each}) == 1
    assert verify(store, BASE, teachers={**captioner(), **WORDS}) == []
    # the same whatever the units and batches, another for another seed
    other = make_store(tmp_path / "o", 20)
    reinforce(other, replace(BASE, unit_rows=3, batch_size=4), teachers=captioner())
    assert captions(other) == found
    third = make_store(tmp_path / "t", 20)
    reinforce(third, replace(BASE, seed=5), teachers=captioner())
    assert captions(third) != found


def test_captions_know_nothing_of_views(tmp_path):
    store = make_store(tmp_path / "s", 6)
    seen = []

    def look(images, num, seeds):
        seen.extend(image.shape for image in images)
        return say(images, num, seeds)

    reinforce(store, replace(BASE, caption_retries=0), teachers=captioner(look))
    assert set(seen) == {(52, 64, 3), (60, 48, 3)}
    assert store.columns[-1] == "caption.cap"


def test_empty_and_repeated_captions_are_drawn_again_and_counted(tmp_path):
    calls = []

    def moody(images, num, seeds):
        calls.append(len(images))
        texts = {0: ["", "a box", "a box"], 1: [" ", "a disc", "a bar"]}
        return [texts[min(len(calls) - 1, 1)][:num] for _ in images]

    store = make_store(tmp_path / "s", 4)
    report = reinforce(store, BASE, teachers=captioner(moody))
    assert captions(store)[0] == ["a box", "a disc", "a bar"]
    assert report.counts == {"cap: empty": 8, "cap: repeated": 4}
    assert store.card("caption.cap").facts["mended"] == {"0": {"empty": 8, "repeated": 4}}


@pytest.mark.parametrize("policy", ["text", "drop"])
def test_empty_captions_fall_back(tmp_path, policy):
    def dull(images, num, seeds):
        return [["a box", "", ""] for _ in images]

    store = make_store(tmp_path / "s", 4)
    report = reinforce(store, replace(BASE, empty_captions=policy), teachers=captioner(dull))
    if policy == "text":
        assert captions(store)[1] == ["a box", "a box", "a box"]
    # the repeats of later tries count as captions before anything is replaced
    assert report.counts["cap: empty"] == 4 * 6
    assert report.counts["cap: repeated"] == 4 * 2

    def silent(images, num, seeds):
        return [["", "", ""] for _ in images]

    other = make_store(tmp_path / "o", 4)
    report = reinforce(other, replace(BASE, empty_captions=policy), teachers=captioner(silent))
    assert captions(other)[2] == [rows(4)["text"][2]] * 3
    assert report.counts == {"cap: empty": 4 * 9, "cap: replaced": 12}

    def once(images, num, seeds):
        return [["a box", "a bar", ""] for _ in images]

    last = make_store(tmp_path / "l", 4)
    config = replace(BASE, empty_captions=policy, caption_retries=0)
    reinforce(last, config, teachers=captioner(once))
    expected = rows(4)["text"][3] if policy == "text" else "a box"
    assert captions(last)[3] == ["a box", "a bar", expected]


def test_bad_input_no_caption_and_no_text(tmp_path):
    def silent(images, num, seeds):
        return [[""] * num for _ in images]

    data = rows(4)
    store = Store.create(tmp_path / "s", [{"id": data["id"], "image": data["image"]}])
    with pytest.raises(DataError, match=r"row 0 \(id 's0000'\): captioner 'cap' wrote nothing"):
        reinforce(store, BASE, teachers=captioner(silent))
    with pytest.raises(DataError, match="teacher 'cap': expected 3 captions of each of 4 images"):
        reinforce(store, BASE, teachers=captioner(lambda images, num, seeds: [["a"]] * len(images)))


def test_the_expression_chooses_captioners(tmp_path):
    store = make_store(tmp_path / "s", 8)
    both = {**captioner(name="weak"), **captioner(name="strong")}
    reinforce(store, BASE, teachers=both)
    chosen = replace(BASE, caption_columns="str.*")
    reinforce(store, chosen, teachers=WORDS)
    assert store.has("words.caption.strong.2")
    assert not store.has("words.caption.weak.0")
    reinforce(store, replace(BASE, caption_columns=""), teachers=WORDS)
    assert not store.has("words.caption.weak.0")
    reinforce(store, replace(BASE, caption_columns="weak|strong"), teachers=WORDS)
    assert store.has("words.caption.weak.0")


def test_bad_input_caption_expression(tmp_path):
    store = make_store(tmp_path / "s", 4)
    reinforce(store, BASE, teachers=captioner())
    with pytest.raises(ConfigError, match=r"caption_columns: 'ca' matches no captioner \(cap\)"):
        reinforce(store, replace(BASE, caption_columns="ca"), teachers=WORDS)
    with pytest.raises(ConfigError, match="is not a regular expression"):
        replace(BASE, caption_columns="(")


def test_captions_of_another_captioner_make_other_embeddings(tmp_path):
    from understudy.core.errors import CardError

    store = make_store(tmp_path / "s", 4)
    reinforce(store, BASE, teachers={**captioner(), **WORDS})

    def other(images, num, seeds):
        return [[f"thing {i}" for i in range(num)] for _ in images]

    again = replace(BASE, overwrite=True)
    reinforce(store, again, teachers=captioner(other))
    assert captions(store)[0] == ["thing 0", "thing 1", "thing 2"]
    with pytest.raises(CardError, match=r"differs in config\.captions"):
        reinforce(store, BASE, teachers=WORDS)
    reinforce(store, again, teachers=WORDS)
    values = embedded(store)
    for s in range(3):
        expected = WORDS["words"].embed_texts([f"thing {s}"])[0]
        assert np.abs(values[0, s] - expected).max() < 1e-3


def test_fewer_captions_leave_no_embeddings_behind(tmp_path):
    store = make_store(tmp_path / "s", 8)
    reinforce(store, BASE, teachers={**captioner(), **WORDS})
    fewer = replace(BASE, captions=1, overwrite=True)
    report = reinforce(store, fewer, teachers={**captioner(), **WORDS})
    assert report.columns[-1] == "words.caption.cap.0"
    assert [c for c in store.columns if ".caption." in c] == ["words.caption.cap.0"]
    fresh = make_store(tmp_path / "f", 8)
    reinforce(fresh, replace(fewer, overwrite=False), teachers={**captioner(), **WORDS})
    assert store.content_hash() == fresh.content_hash()


def test_a_dropped_column_is_embedded_again(tmp_path):
    asked = []

    def embed(texts):
        asked.extend(texts)
        return text_embedding(texts)

    teachers = {**captioner(), "words": FunctionTeacher("words", {"embed_texts": embed})}
    store = make_store(tmp_path / "s", 8)
    reinforce(store, BASE, teachers=teachers)
    whole = store.content_hash()
    store.drop("words.caption.cap.1")
    asked.clear()
    reinforce(store, BASE, teachers=teachers)
    assert asked == [row[1] for row in captions(store)]
    assert store.content_hash() == whole


def test_bad_input_rows_with_other_numbers_of_captions(tmp_path):
    import pyarrow as pa

    data = rows(4)
    odd = [["a", "b"], ["a", "b"], ["a"], ["a", "b"]]
    table = pa.table({"id": data["id"], "text": data["text"], "caption.old": odd})
    store = Store.create(tmp_path / "s", [table])
    with pytest.raises(DataError, match=r"row 2 \(id 's0002'\): 1 captions of 'old', the first"):
        reinforce(store, BASE, teachers=WORDS)


def test_image_only_teacher_leaves_texts_alone(tmp_path):
    store = make_store(tmp_path / "s", 4)
    teacher = function_teacher()
    only = FunctionTeacher("e", {"embed_images": teacher.functions["embed_images"]})
    reinforce(store, BASE, teachers={"e": only, **captioner()})
    assert not any(c.startswith("e.") and "image" not in c for c in store.columns)
