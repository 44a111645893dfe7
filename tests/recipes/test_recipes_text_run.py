"""`run` of the text recipes, end to end at the smallest size, through the command."""

import json

import numpy as np
import pytest

from understudy.cli import main
from understudy.curate.engine.pipeline import Pipeline
from understudy.curate.pool_sets import heuristics
from understudy.data.store import Store

WORDS = (
    "the people of this town have known for a long time that winter comes early and that it is "
    "wise to be ready with wood and bread before the snow closes road with all its weight while "
    "children play near rivers under old trees where birds sing about summer days which were warm"
).split()
SMALL = ["--documents.model", "openlm-micro", "--documents.context", "32"]
SMALL += ["--documents.tokens-per-step", "256", "--documents.budget", "1024"]


def prose(number, seed):
    rng = np.random.default_rng(seed)
    sentences = (" ".join(rng.permutation(WORDS)[:12]).capitalize() + "." for _ in range(number))
    return "\n\n".join(sentences)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "pages").mkdir()
    for i in range(30):
        text = prose(8 + i % 5, i) if i % 3 else f"0x{i:04x} " * 80
        body = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
        page = f"<html><body><nav>menu</nav><main>{body}</main></body></html>"
        (folder / "pages" / f"{i:02d}.html").write_text(page)
    for name, seeds in (("good", range(100, 120)), ("held", range(200, 206))):
        lines = [json.dumps({"text": prose(9, seed)}) for seed in seeds]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def curated(world):
    pytest.importorskip("resiliparse", reason="extraction needs the extra 'curate'")
    words = ["run", "dclm", world / "pages", "--reference", world / "good.jsonl"]
    words += ["--held-out", world / "held.jsonl", "--out", world / "dclm", "--vocab-size", 300]
    words += ["--keep", 0.5, "--workers", 1, "--most-repeats", 100, *SMALL]
    assert main([str(word) for word in words]) == 0
    return world / "dclm"


def test_heuristics_are_those_of_the_package_pipeline():
    whole = [n for n in Pipeline.named("dclm").names]
    assert [s["name"] for s in heuristics()] == whole[1 : whole.index("commit")]
    told = {s["name"]: s for s in heuristics("fasttext")}["language"]
    assert (told["method"], told["threshold"]) == ("fasttext", 0.65)


def test_dclm_curates_markup_and_trains_on_every_set(curated):
    found = json.loads((curated / "result.json").read_text())
    assert list(found["arms"]) == ["raw", "heuristics", "dedup", "best"]
    documents = [arm["documents"] for arm in found["arms"].values()]
    assert documents[0] == 30
    assert documents == sorted(documents, reverse=True)
    assert documents[1] < 30  # numbers are no prose
    assert all(0 < arm["held_out_nll"] < 7 for arm in found["arms"].values())
    store = Store.open(curated / "sets" / "stores" / "raw")
    texts = store.take(np.arange(store.num_rows), ["text"]).column(0).to_pylist()
    assert not any("<p>" in text or "menu" in text for text in texts)


def test_repetitions_choose_counts_and_a_decay(world, curated):
    out = world / "repetitions"
    words = ["run", "repetitions", curated / "sets" / "tokens" / "raw", "--score", "score.quality"]
    words += ["--held-out", world / "held.jsonl", "--out", out, "--factors", 1, 8, "--recite", 5]
    words += ["--tokenizer", curated / "sets" / "tokenizer.json", "--proxy", 0.5, *SMALL]
    assert main([str(word) for word in words]) == 0
    found = json.loads((out / "result.json").read_text())
    assert found["plan"]["preset"] == "greedy"
    assert set(found["decays"]) == {"0.033", "0.264"}
    lowest = min(found["decays"], key=lambda decay: found["decays"][decay]["held_out_nll"])
    assert found["weight_decay"]["chosen"] == pytest.approx(float(lowest))
    assert found["final"]["weight_decay"] == found["weight_decay"]["chosen"]
    assert found["recited"]["rates"]
    assert (out / "counts.parquet").is_file()
    assert "Weight decay" in (out / "report.html").read_text()
    # again: everything is there, and the numbers are of trained weights
    assert main([str(word) for word in words]) == 0
    assert json.loads((out / "result.json").read_text())["final"] == found["final"]


@pytest.mark.parametrize("baseline", ["masked", "packed"])
def test_decomposition_trains_on_buckets_and_on_a_baseline(world, baseline):
    out = world / f"dd-{baseline}"
    words = ["run", "dataset-decomposition", world / "good.jsonl", "--out", out]
    words += ["--held-out", world / "held.jsonl", "--vocab-size", 300, "--baseline", baseline]
    words += ["--min-log2", 3, "--max-log2", 5, "--lm.model", "openlm-micro"]
    words += ["--lm.tokens-per-step", 256, "--lm.train.steps", 4, "--lm.train.warmup-steps", 1]
    assert main([str(word) for word in words]) == 0
    found = json.loads((out / "result.json").read_text())["arms"]
    assert list(found) == ["buckets", baseline]
    assert all(arm["steps"] == 4 and 0 < arm["held_out_nll"] < 7 for arm in found.values())


def test_dry_runs_count_and_write_nothing(world, curated, tmp_path, capsys):
    tokenizer = curated / "sets" / "tokenizer.json"
    held = ["--held-out", world / "held.jsonl", "--out", tmp_path / "none"]
    runs = {
        "dclm": [world / "pages", "--reference", world / "good.jsonl", *held, *SMALL],
        "repetitions": [
            curated / "sets" / "tokens" / "raw", "--tokenizer", tokenizer, *held, *SMALL,
        ],
        "dataset-decomposition": [
            world / "good.jsonl", *held, "--lm.model", "openlm-micro",
            "--lm.tokens-per-step", 1024, "--lm.train.steps", 4, "--lm.train.warmup-steps", 1,
        ],
    }  # fmt: skip
    for name, words in runs.items():
        capsys.readouterr()
        assert main([str(w) for w in ("run", name, *words, "--dry-run", "--json")]) == 0
        rows = {r["label"]: r["value"] for r in json.loads(capsys.readouterr().out)["rows"]}
        assert rows["parameters of a model"] > 1000
        assert rows["training"] > 6 * 1000 * 1024
        assert rows["steps of a model"] >= 4
    assert not (tmp_path / "none").exists()


def test_a_dry_run_names_what_is_missing(world, tmp_path, capsys):
    words = ["run", "dclm", tmp_path / "no", "--reference", world / "good.jsonl"]
    words += ["--held-out", world / "held.jsonl", "--dry-run"]
    assert main([str(w) for w in words]) == 2
    assert "no file and no folder" in capsys.readouterr().err


def test_pages_of_text_recipes_show_every_arm(curated):
    pytest.importorskip("jinja2", reason="pages need the extra 'report'")
    page = (curated / "report.html").read_text()
    assert all(arm in page for arm in ("raw", "heuristics", "dedup", "best", "held_out_nll"))
    assert "left no metrics" not in page
