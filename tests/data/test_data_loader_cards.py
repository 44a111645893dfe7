"""The loader refuses, before the first batch, what does not fit what is asked for."""

from __future__ import annotations

import logging

import loader_store as made
import numpy as np
import pytest
from loader_store import CONFIG, ROWS, VIEWS, WordCounter

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.loader import (
    Captions,
    Features,
    Images,
    Labels,
    Loader,
    TeacherEmbeddings,
    Texts,
    TopK,
)
from understudy.data.samplers import SequentialSampler, ShuffledSampler
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return made.make_store(tmp_path_factory.mktemp("cards") / "store")


def load(store: Store, *fields, views: int = VIEWS, **options) -> Loader:
    return Loader(store, ShuffledSampler(ROWS, 8, num_views=views), fields, **options)


MAIN = Images(size=16, view_set="main")
TOKENS = WordCounter()
COCA = Captions(captioner="coca", tokenize=TOKENS)
RESIZED = ViewConfig(size=16, transforms={"resize": {}})


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        # views
        (
            [Images(size=16, view_set="mian")],
            CardError,
            r"no views of set 'mian' \(sets: main, mixed",
        ),
        ([Images(size=16, view_set="mixed")], CardError, "has 1 stored views and the sampler asks"),
        (
            [Images(size=24, view_set="main")],
            ConfigError,
            r"stored at 16 pixels and .* rescale=True",
        ),
        (
            [Images(size=16, view_set="main", views=ViewConfig(size=16))],
            None,
            "",
        ),
        (
            [Images(size=16, view_set="main", views=RESIZED)],
            CardError,
            "view.main.0.*its views differ from the ones asked for in transforms.resize",
        ),
        (
            [Images(size=16, plain=ViewConfig(size=12))],
            ConfigError,
            "plain makes views of 12 pixels and Images asks for 16",
        ),
        # teachers
        (
            [MAIN, TeacherEmbeddings(teachers=["tc"])],
            CardError,
            "teacher 'tc' has no embeddings of view 0 of set 'main'",
        ),
        (
            [MAIN, TeacherEmbeddings(teachers=["ta", "tb"], dims=[6, 8])],
            CardError,
            r"tb.image.main.0.*config.shape: expected \[8\], found \[4\]",
        ),
        (
            [MAIN, TeacherEmbeddings(teachers=["ta"], dtype="bfloat16")],
            CardError,
            r"ta.image.main.0.*config.dtype: expected 'bfloat16', found 'float16'",
        ),
        (
            [MAIN, TeacherEmbeddings(teachers=["ta"], fingerprints=["hash-x"])],
            CardError,
            r"ta.image.main.0.*fingerprint: expected 'hash-x', found 'hash-ta'",
        ),
        (
            [MAIN, TeacherEmbeddings(teachers=["ta"], view_set="mixed")],
            CardError,
            "targets of view set 'mixed', but the images replay 'main'",
        ),
        ([TeacherEmbeddings(teachers=["ta"])], CardError, "no view set is named"),
        (
            [TeacherEmbeddings(teachers=["ta"], images=False, texts=False, captions="blip")],
            DataError,
            "has no column 'ta.caption.blip.0'",
        ),
        (
            [
                TeacherEmbeddings(
                    teachers=["tb"], dims=[9], images=False, captions="coca", texts=False
                )
            ],
            CardError,
            r"tb.caption.coca.0.*config.shape: expected \[9\], found \[4\]",
        ),
        # top-K
        (
            [MAIN, TopK(teacher="ens", k=5)],
            CardError,
            "holds the 3 largest probabilities, asked for 5",
        ),
        (
            [MAIN, TopK(teacher="ens", num_classes=10)],
            CardError,
            "the teacher knows 7 classes, the data set has 10",
        ),
        (
            [MAIN, TopK(teacher="oth")],
            CardError,
            "no probabilities of teacher 'oth' .*with some: ens",
        ),
        ([TopK(teacher="ens")], CardError, "no view set is named"),
        # the rest
        ([Labels(column="text")], DataError, "column 'text' holds string, expected integers"),
        (
            [Features(column="feature.enc.image", shape=[6])],
            CardError,
            r"config.shape: expected \[6\], found \[5\]",
        ),
        (
            [Features(column="feature.enc.image", fingerprint="h")],
            CardError,
            "fingerprint: expected 'h', found 'hash-enc'",
        ),
        ([Features(column="feature.enc.imag")], DataError, "Did you mean feature.enc.image"),
        ([Captions(captioner="coco", tokenize=TOKENS)], DataError, "Did you mean caption.coca"),
        ([Labels(), Labels()], ConfigError, "two fields make the batch's 'labels'"),
        ([], ConfigError, "no fields"),
        (
            [COCA, Captions(captioner="coca", tokenize=TOKENS, pick="epoch", key="b")],
            ConfigError,
            "picked in two ways",
        ),
        (
            [MAIN, Images(size=16, view_set="mixed", key="b")],
            CardError,
            "one loader replays one set",
        ),
    ],
)
def test_bad_input_cards_that_do_not_fit(store, fields, error, message):
    if error is None:
        load(store, *fields)
        return
    with pytest.raises(error, match=message):
        load(store, *fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Images(size=0), "size: expected at least 1 pixel"),
        (lambda: Images(size=8, std=(1, 0, 1)), "three positive stds"),
        (lambda: Images(size=8, replay="frsh"), "'frsh' is not one of stored, fresh"),
        (lambda: Images(size=8, replay="fresh"), "are about stored views; set view_set"),
        (
            lambda: Images(
                size=8, plain=ViewConfig(size=8, transforms={"resize": {}, "mixup": {}})
            ),
            "mixup and cutmix would need mixed targets",
        ),
        (lambda: TeacherEmbeddings(teachers="ta"), "expected a list of names, got 'ta'"),
        (lambda: TeacherEmbeddings(teachers=["a", "b"], dims=[4]), "1 values for 2 teachers"),
        (lambda: TeacherEmbeddings(teachers=["a"], images=False, texts=False), "nothing to read"),
        (
            lambda: Captions(captioner="c", tokenize=TOKENS, pick="all"),
            "'all' is not one of random",
        ),
    ],
)
def test_bad_input_fields(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_input_loader_options(store):
    for options, message in (
        ({"p": 1.2}, r"p: expected a probability from 0 to 1, got 1.2"),
        ({"workers": -1}, "expected workers >= 0, ahead >= 1 and read_rows >= 1, got -1, 4"),
        ({"ahead": 0}, "got 2, 0 and 1024"),
        ({"read_rows": 0}, "got 2, 4 and 0"),
        ({"mode": "forks"}, "'forks' is not one of threads, processes"),
        ({"p": 0.9}, "a plain image has no stored embedding to imitate"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(store, MAIN, TeacherEmbeddings(teachers=["ta"]), **options)
    with pytest.raises(ConfigError, match="the sampler draws row 29 and .* has 24 rows"):
        Loader(store, ShuffledSampler(30, 4), [Labels()])
    with pytest.raises(ConfigError, match="expected start and count >= 0"):
        load(store, Labels())(-1, 3)


def test_bad_input_tokenizer_of_another_length(store):
    loader = load(store, Texts(tokenize=WordCounter(6), context=77))
    with pytest.raises(ConfigError, match="rows of 6 ids and context is 77"):
        loader.load(0)
    loader = load(store, Texts(tokenize=lambda texts: np.zeros(len(texts), int)))
    with pytest.raises(DataError, match=r"tokenize returned \[8\] for 8 texts"):
        loader.load(0)
    loader = load(store, Texts(column="label", tokenize=WordCounter()))
    with pytest.raises(DataError, match="column 'label' holds int64, expected strings"):
        loader.load(0)


def partly_filled(path) -> Store:
    store = Store.create(path, [made.payload()])
    made.fill_views(store, CONFIG)
    rows = np.arange(10)
    for k in range(VIEWS):
        values = made.encode_embeddings(made.embedding("ta", "view", k, rows))
        config = {**made.embedding_config([6]), "set": "main", "k": k}
        made.fill(store, f"ta.image.main.{k}", values, config)
    return store


def test_bad_input_unfilled_rows_are_named(tmp_path):
    store = partly_filled(tmp_path / "s")
    fields = [MAIN, TeacherEmbeddings(teachers=["ta"], texts=False)]
    with pytest.raises(DataError) as error:
        load(store, *fields)
    text = str(error.value)
    assert "'ta.image.main.0' is not filled in 14 of the 24 rows" in text
    assert "row 10 (id 'sample-10')" in text
    assert "run the same reinforce command again" in text
    some = Loader(store, ShuffledSampler(np.arange(10), 5, num_views=VIEWS), fields)
    assert len(some.load(0)["rows"]) == 5

    class Silent:  # a sampler that does not say what it draws is caught at the row
        def batch(self, step):
            return ShuffledSampler(ROWS, 24).batch(step)

    filled = np.flatnonzero(store.filled("ta.image.main.0"))
    assert filled.tolist() == list(range(10))


def test_bad_input_unfilled_row_met_while_reading(tmp_path):
    store = partly_filled(tmp_path / "s")
    sampler = ShuffledSampler(np.arange(10), 5, num_views=VIEWS)
    loader = Loader(store, sampler, [MAIN, TeacherEmbeddings(teachers=["ta"], texts=False)])
    sampler.rows = np.arange(10, 20)  # as a sampler that does not say what it draws would
    with pytest.raises(
        DataError, match=r"'ta.image.main.\d' has no value in row 1\d \(id 'sample-1"
    ):
        loader.load(0)


def test_bad_input_targets_of_renamed_or_replaced_views(tmp_path):
    store = Store.create(tmp_path / "s", [made.payload()])
    made.fill_views(store, CONFIG)
    rows = np.arange(ROWS)
    values = made.encode_embeddings(made.embedding("ta", "view", 0, rows))
    base = {**made.embedding_config([6]), "set": "main"}
    made.fill(store, "ta.image.main.0", values, {**base, "k": 2})
    made.fill(store, "tb.image.main.0", values, {**base, "k": 0, "set": "other"})
    made.fill(store, "tc.image.main.0", values, {**base, "k": 0, "views": "older"})
    good = {**base, "k": 0, "views": CONFIG.hash}
    made.fill(store, "td.image.main.0", values, good)
    made.fill(store, "te.image.main.0", values, good, seed=8)
    for teacher, message in (
        ("ta", "is about view 2, expected 0"),
        ("tb", "is about set 'other', expected 'main'"),
        (
            "tc",
            r"computed on other views than 'view.main.0' holds now \(configuration older, seed 0",
        ),
        ("te", r"computed on other views .*seed 8; stored .*, seed 0\)"),
    ):
        with pytest.raises(CardError, match=message):
            load(store, MAIN, TeacherEmbeddings(teachers=[teacher], texts=False), views=1)
    load(store, MAIN, TeacherEmbeddings(teachers=["td"], texts=False), views=1)


def test_bad_input_views_of_another_version_or_order(tmp_path):
    store = Store.create(tmp_path / "s", [made.payload()])
    made.fill_views(store, CONFIG, count=1)
    values = store.take(range(ROWS), ["view.main.0"]).column(0).combine_chunks()
    made.fill(store, "view.v2.0", values, {**CONFIG.to_dict(), "version": 2, "set": "v2", "k": 0})
    backend = {"order": ["mixup", "resize"]}
    config = {**CONFIG.to_dict(), "set": "ord", "k": 0}
    made.fill(store, "view.ord.0", values, config, backend=backend)
    other = ViewConfig(size=16, transforms={"random_resized_crop": {}})
    made.fill(store, "view.main.1", values, {**other.to_dict(), "set": "main", "k": 1})
    with pytest.raises(CardError, match="records of version 2, this code replays version 1"):
        load(store, Images(size=16, view_set="v2"), views=1)
    with pytest.raises(CardError, match=r"written with the order \['mixup', 'resize'\]"):
        load(store, Images(size=16, view_set="ord"), views=1)
    with pytest.raises(
        CardError, match=r"view.main.1.*differ from the ones asked for in transforms"
    ):
        load(store, Images(size=16, view_set="main"), views=2)


def test_other_libraries_are_logged(tmp_path, caplog):
    store = Store.create(tmp_path / "s", [made.payload()])
    made.fill_views(store, CONFIG, count=1)
    values = store.take(range(ROWS), ["view.main.0"]).column(0).combine_chunks()
    old = {**store.card("view.main.0").backend, "pillow": "9.0.0"}
    config = {**CONFIG.to_dict(), "set": "old", "k": 0}
    made.fill(store, "view.old.0", values, config, backend=old)
    with caplog.at_level(logging.WARNING, "understudy.data.loader_images"):
        load(store, Images(size=16, view_set="main"), views=1)
        assert not caplog.records
        load(store, Images(size=16, view_set="old"), views=1)
    assert "view.old.0 was written with other libraries (pillow 9.0.0 -> " in caplog.text


def test_evaluation_reads_the_view_it_names(store):
    sampler = SequentialSampler(ROWS, 8, view=2)
    fields = [MAIN, TeacherEmbeddings(teachers=["ta"], texts=False)]
    loader = Loader(store, sampler, fields)
    assert "ta.image.main.2" in loader.describe()["columns"]
    assert "ta.image.main.0" not in loader.describe()["columns"]
    rows = loader.load(0)["rows"].numpy()
    expected = made.embedding("ta", "view", 2, rows).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(loader.load(0)["teacher_images"][0].numpy(), expected)
