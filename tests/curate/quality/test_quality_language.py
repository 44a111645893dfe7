"""Language identification: a model's labels, the heuristic, and what is said when a model lacks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from quality_world import ENGLISH, GERMAN, batch

from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.stage import chain
from understudy.curate.quality.language import Language
from understudy.curate.quality.language_words import (
    frequent_words,
    language_shares,
    predict_languages,
    script_shares,
)
from understudy.curate.quality.models import LANGUAGE_ASSET
from understudy.data.fetch import cached
from understudy.data.fetch_table import ASSETS
from understudy.models.text.fasttext_fit import FastTextConfig, fit

SENTENCES = {
    "en": ENGLISH,
    "de": GERMAN,
    "fr": "Nous avons visité le musée avec les enfants, et il est vrai que c'est la plus belle de "
    "toutes les maisons de cette ville.",
    "es": "Mañana iremos al mercado para comprar la fruta que nos gusta, pero no sé si está "
    "abierto por la tarde.",
    "it": "La biblioteca rimane chiusa durante le vacanze, ma non è un problema perché gli altri "
    "libri sono già nella mia casa.",
    "nl": "Het regent vandaag en daarom blijven we liever thuis, maar het is niet zo koud als in "
    "de winter van dat jaar.",
    "ru": "Вчера мы долго гуляли по набережной, и это было так хорошо, что все уже не хотели идти "
    "домой.",
    "uk": "Учора ми довго гуляли набережною, і це було так добре, що вже не хотіли йти додому.",
    "el": "Το βιβλίο βρίσκεται πάνω στο τραπέζι.",
    "he": "אתמול בערב הלכנו לראות סרט חדש.",
    "hi": "हम कल सुबह बाज़ार जाएँगे।",
    "ja": "昨日は友達と一緒に新しい映画を見に行きました。",
    "ko": "어제 저녁에 친구들과 함께 영화를 보러 갔습니다.",
    "zh": "我们明天早上要去市场买新鲜的水果。",
    "th": "พรุ่งนี้เช้าเราจะไปตลาด",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of two invented languages, saved as fastText would."""
    rng = np.random.default_rng(0)
    ends = {"en": ("ing", "tion", "ed"), "xx": ("ula", "oro", "ima")}
    texts, labels = [], []
    for i in range(300):
        label = ("en", "xx")[i % 2]
        stems = ["".join(rng.choice(list("bdfklmnprst"), 3)) for _ in range(8)]
        texts.append(" ".join(s + str(rng.choice(ends[label])) for s in stems))
        labels.append(label)
    config = FastTextConfig(
        dim=8, lr=0.5, epochs=8, buckets=1_000, word_ngrams=1, min_chars=2, max_chars=4
    )
    return fit(texts, labels, config).save_bin(tmp_path_factory.mktemp("lid") / "lid.bin")


def test_fasttext_keeps_one_language(model):
    stage = Language(model=str(model))
    texts = ["baking motion fixed", "lakula\nmiroro", "kotima baking", None, "pirima solula"]
    found = stage(batch(texts))
    assert found.column("id").to_pylist() == ["p0"]
    assert found.column("language").to_pylist() == ["en"]
    assert found.column("language_prob")[0].as_py() >= 0.65
    everything = Language(model=str(model), keep="")(batch(texts))
    assert everything.num_rows == 5
    names = everything.column("language").to_pylist()
    assert (names[0], names[1], names[4]) == ("en", "xx", "xx")
    p = everything.column("language_prob").to_numpy()
    assert p.dtype == np.float32
    assert p.max() <= 1
    other = Language(model=str(model), keep="xx", threshold=0.9)(batch(texts))
    assert set(other.column("id").to_pylist()) == {"p1", "p4"}


def test_threshold_is_inclusive(model):
    pages = batch(["kotima baking"])
    p = Language(model=str(model), keep="")(pages)
    name, value = p.column("language")[0].as_py(), p.column("language_prob")[0].as_py()
    at = Language(model=str(model), keep=name, threshold=value)
    above = Language(model=str(model), keep=name, threshold=min(value + 1e-3, 1.0))
    assert at(pages).num_rows == 1
    assert above(pages).num_rows == (value + 1e-3 <= value)


def test_in_a_chain_drops_are_counted(model):
    stage = Language(model=str(model))
    assert stage.kind == "filter"
    assert Language(model=str(model), keep="").kind == "enricher"
    found, counts = chain([stage], batch(["baking motion", "lakula miroro", "pirima"]))
    assert counts[0].pages_out == 1
    assert counts[0].reasons == {"language": 2}
    assert found.schema.field("language").type == pa.string()
    assert found.schema.field("language_prob").type == pa.float32()


def test_identity_follows_the_model(model, tmp_path):
    first = Language(model=str(model)).describe()
    copy = tmp_path / "copy.bin"
    copy.write_bytes(model.read_bytes())
    assert Language(model=str(copy)).describe() == first
    assert Language(model=str(model), threshold=0.5).describe() != first
    assert Language(method="words").describe()["model"] == ""


def test_missing_model_says_where_and_what_else(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError) as error:
        Language()
    message = str(error.value)
    assert "lid.176.ftz" in message
    assert str(tmp_path / "cache" / "models") in message
    assert ("data fetch lid-176" in message) == (LANGUAGE_ASSET in ASSETS)
    assert "method: words" in message
    with pytest.raises(DataError, match="at /nowhere/lid.bin"):
        Language(model="/nowhere/lid.bin")
    garbage = tmp_path / "garbage.ftz"
    garbage.write_bytes(b"not a model" * 9)
    with pytest.raises(DataError, match=r"garbage\.ftz: neither a fastText model"):
        Language(model=str(garbage))


def test_model_in_the_usual_place(model, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lid.176.bin").write_bytes(model.read_bytes())
    assert Language()(batch(["baking motion fixed"])).num_rows == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold: expected 0 to 1, got 1.5"),
        ({"method": "fastext"}, "Did you mean 'fasttext'"),
        ({"method": "words", "model": "x"}, "has none"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        Language(**options)


def test_language_must_be_one_of_the_models(model):
    with pytest.raises(ConfigError, match="no label 'english'; its labels: "):
        Language(model=str(model), keep="english")


def test_words_tell_languages_apart():
    names, p = predict_languages(list(SENTENCES.values()))
    assert names == list(SENTENCES)
    assert p[0] >= 0.65
    assert (p <= 1).all()
    kept = Language(method="words")(batch(SENTENCES.values()))
    assert kept.column("text").to_pylist() == [ENGLISH]


def test_words_formula_by_hand():
    # 'the' and 'of' are listed by English alone; 'xyzzy' by none
    table = frequent_words()
    assert [language for language, _ in table["the"]] == ["en"]
    assert [language for language, _ in table["of"]] == ["en", "nl"]
    shares = language_shares("the of xyzzy xyzzy")
    # English has h = 1 + 1/2, Dutch 1/2; n = 4: the denominator is 2 + 0.2 + 0.5
    assert shares["en"] == pytest.approx(1.5 / 2.7)
    assert shares["nl"] == pytest.approx(0.5 / 2.7)
    assert predict_languages(["", "1234 !!", "xyzzy"])[0] == [None, None, None]


def test_scripts():
    assert script_shares("abc") == {"latin": 1.0}
    assert script_shares("123") == {}
    mixed = script_shares("ab где")
    assert mixed["latin"] == pytest.approx(2 / 5)
    assert mixed["cyrillic"] == pytest.approx(3 / 5)
    assert language_shares("漢字 かな")["ja"] == pytest.approx(1)
    assert set(language_shares("漢字")) == {"zh"}
    for text in SENTENCES.values():
        assert sum(language_shares(text).values()) <= 1 + 1e-9


def test_published_model_knows_its_languages():
    if LANGUAGE_ASSET not in ASSETS or cached(LANGUAGE_ASSET) is None:
        pytest.skip(f"asset '{LANGUAGE_ASSET}' isn't in the cache")
    names, _ = Language(keep="")._classifier.predict(list(SENTENCES.values()))
    assert names == list(SENTENCES)
