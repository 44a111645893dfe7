"""`understudy curate tokenise|pack|buckets|counts|repeats`, one after the other."""

import json

import numpy as np
import pytest

from understudy.cli import main
from understudy.data.store import Store
from understudy.models.text.train_tokenizer import train_byte_bpe

WORDS = "the cat sat on a mat and saw that one of them was here with us to be or not".split()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, n)) for n in rng.integers(20, 120, 60)]
    lines = [
        json.dumps({"id": f"d{i}", "text": t, "score.q": float(i)}) for i, t in enumerate(texts)
    ]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer.json").write_text(train_byte_bpe(texts, 300).to_json())
    return folder


def run(capsys, *words):
    status = main(["curate", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_documents_become_tokens_sequences_and_counts(world, capsys):
    words = ["tokenise", world / "texts.jsonl", world / "tokens", "--workers", 1]
    words += ["--tokenizer", world / "tokenizer.json", "--facts", "score.q:float32", "--json"]
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, f"wrote {world / 'tokens'}\n")
    assert json.loads(out)["documents"] == 60

    words = ["pack", world / "tokens", world / "buckets", "--pack.kind", "buckets"]
    words += ["--pack.min-log2", 3, "--pack.max-log2", 5, "--run.workers", 1]
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "max_log2" in out

    words = ["buckets", world / "buckets", "--tokens-per-step", 64, "--model", "openlm-micro"]
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "FLOP a token" in out

    words = ["counts", world / "tokens", "--score", "score.q", "--counts.preset", "greedy"]
    words += ["--counts.budget", 4_000, "--out", world / "plan", "--json"]
    status, out, _ = run(capsys, *words)
    facts = json.loads(out)
    assert status == 0
    assert 3_800 < facts["tokens"] <= 4_000
    store = Store.open(world / "tokens")
    counts, sizes = store.array("count"), store.array("length") + 1
    assert (counts * sizes).sum() == facts["tokens"]
    assert counts[30:].sum() > counts[:30].sum()
    config = json.loads((world / "plan" / "plan.json").read_text())["config"]
    assert config["tokenizer_hash"] == store.meta["tokens"]["tokenizer_hash"]


def test_repeats_are_worth_what_the_formula_says(capsys):
    status, out, _ = run(capsys, "repeats", "--unique", 300_000, "--budget", 3_000_000)
    assert status == 0
    assert "0.7814" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokenise", "texts.jsonl", "--tokenizer", "t.json"], "name inputs and then the store"),
        (["repeats", "--unique", "10", "--budget", "5"], "less than one epoch"),
        (["buckets", "nowhere", "--tokens-per-step", "64"], "no such store"),
    ],
)
def test_mistakes_are_one_line(capsys, words, message):
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
