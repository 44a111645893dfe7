"""`understudy update encode|fit|apply`, from the command line's words to what is written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from understudy.cli import main
from understudy.data.spaces import space_of
from understudy.data.store import Store
from understudy.update.gallery import Gallery

WORDS = ["apple", "pear", "orange", "sea", "eel", "tea", "ape", "oar", "lea", "ear"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "letters.py").write_text(
        "import numpy as np\n"
        "def old(texts):\n"
        "    return np.array([[t.count('a'), t.count('e'), len(t), 1] for t in texts], 'f')\n"
        "def new(texts):\n"
        "    x = old(texts)\n"
        "    return np.stack([x[:, 0] - x[:, 1], x[:, 2] * 2 + 1, x[:, 1]], 1) + 0.5\n"
    )
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    rows = {
        "id": [f"i{k}" for k in range(100)],
        "text": texts,
        "label": [k % 3 for k in range(100)],
    }
    return Store.create(tmp_path / "s", [rows])


def run(capsys, *words: str) -> tuple[int, str, str]:
    status = main(["update", *words])
    out = capsys.readouterr()
    return status, out.out, out.err


def encode(capsys, name: str, *more: str) -> tuple[int, str, str]:
    return run(
        capsys, "encode", "s", "--model", f"letters:{name}", "--name", name, "--column", "text",
        *more
    )  # fmt: skip


def fit(capsys, *more: str) -> tuple[int, str, str]:
    small = ["--inner", "16", "--epochs", "4", "--warmup-epochs", "1", "--batch-size", "32"]
    return run(
        capsys, "fit", "s", "--old", "embed.old", "--new", "embed.new", "--out", "map", *small,
        *more
    )  # fmt: skip


def test_the_whole_way(store, capsys):
    assert encode(capsys, "old")[0] == 0
    status, _, err = encode(capsys, "new", "--sample", "60", "--seed", "3")
    assert status == 0
    assert "wrote column 'embed.new' of s, in space" in err
    store.refresh()
    assert int(store.filled("embed.new").sum()) == 60

    status, out, err = fit(capsys, "--labels", "label", "--loss", "l2+disc+unc", "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert facts["train_pairs"] == 54
    assert "class means" in facts["classifier"]
    assert "wrote map/map.safetensors" in err

    status, out, _ = run(capsys, "apply", "s", "--map", "map", "--json", "--dry-run")
    plan = json.loads(out)
    assert (plan["rows"], plan["writes"]) == (100, "embed.new.from.old")
    assert plan["flops"] == 100 * facts["flops_per_item"]
    assert not store.refresh().has("embed.new.from.old")

    status, out, err = run(capsys, "apply", "s", "--map", "map")
    assert status == 0
    assert "wrote column 'embed.new.from.old' of s" in err
    assert "items per second" in out
    store.refresh()
    assert store.filled("embed.new.from.old.u").all()
    gallery = Gallery.open(store, new="embed.new", mapped="embed.new.from.old")
    assert gallery.counts() == {"absent": 0, "mapped": 40, "encoded": 60}

    status, _, err = run(capsys, "apply", "s", "--map", "map", "--in-place")
    assert status == 0
    assert "the version before is tagged" in err
    status, _, err = run(capsys, "apply", "s", "--map", "map", "--in-place")
    assert status == 2
    assert "applied once" in err
    assert len(err.strip().splitlines()) == 1


def test_dry_runs_write_nothing(store, capsys, tmp_path):
    status, out, _ = encode(capsys, "old", "--dry-run", "--json", "--dtype", "float16")
    facts = json.loads(out)
    assert status == 0
    assert (facts["rows"], facts["dim"], facts["bytes_written"]) == (100, 4, 800)
    assert not store.refresh().has("embed.old")
    encode(capsys, "old")
    encode(capsys, "new")
    before = store.refresh().version
    status, out, _ = fit(capsys, "--dry-run", "--json", "--loss", "l2+unc")
    facts = json.loads(out)
    # P(4, 4, 3, 16) + 3 + 1, by the formula of the paper's network
    expected = 2 * (2 * 16 + 4 * 4 + 4 * 12 + 4 * 3) + (4 * 48 + 32) + (256 + 32) + (48 + 3) + 4
    assert facts["parameters"] == expected
    assert facts["pairs"] + facts["held_out"] == 100
    assert facts["flops"] == 3 * facts["flops_per_item_applied"] * 90 * 4
    assert not (tmp_path / "map").exists()
    assert store.refresh().version == before


def test_the_seed_decides_the_map(store, capsys):
    encode(capsys, "old")
    encode(capsys, "new")
    prints = []
    for seed in ("0", "0", "1"):
        _, out, _ = fit(capsys, "--seed", seed, "--json", "--fresh")
        prints.append(json.loads(out)["fingerprint"])
    assert prints[0] == prints[1] != prints[2]


def test_a_classifier_and_closed_forms(store, capsys, tmp_path):
    encode(capsys, "old")
    encode(capsys, "new")
    save_file({"weight": torch.randn(3, 3)}, tmp_path / "head.safetensors")
    status, out, _ = fit(
        capsys, "--labels", "label", "--loss", "l2+disc", "--classifier", "head.safetensors",
        "--json"
    )  # fmt: skip
    assert status == 0
    assert json.loads(out)["classifier"] == "head.safetensors"
    status, out, _ = fit(capsys, "--kind", "least-squares", "--fresh", "--json")
    assert status == 0
    assert json.loads(out)["held_out_mse"] < 1e-8  # the new letters are linear in the old


def test_files_to_files(store, capsys, tmp_path):
    encode(capsys, "old")
    encode(capsys, "new")
    fit(capsys, "--kind", "least-squares")
    status, _, err = run(capsys, "apply", "s", "--map", "map", "--to", "out.parquet")
    assert status == 0
    assert "wrote out.parquet" in err
    assert not store.refresh().has("embed.new.from.old")
    np.save(tmp_path / "old.npy", store.array("embed.old"))
    status, _, err = run(capsys, "apply", "old.npy", "--map", "map", "--to", "new.npy", "--trust")
    assert status == 0, err
    np.testing.assert_allclose(np.load("new.npy"), store.array("embed.new"), atol=1e-3)
    fields = {"old": store.array("embed.old"), "new": store.array("embed.new")}
    np.savez(tmp_path / "p.npz", ids=np.arange(100).astype(str), **fields)
    status, _, err = run(
        capsys, "fit", "p.npz", "--kind", "orthogonal", "--out", "turn", "--held-out", "0"
    )
    assert status == 0
    assert "warning: no pairs were held out" in err
    assert space_of(store, "embed.new").dim == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "s"], "name the two columns"),
        (["fit", "s", "--old", "embed.a", "--new", "embed.b"], "has no column 'embed.a'"),
        (["apply", "s", "--map", "nowhere"], "no such map file"),
        (["apply", "nowhere.lance", "--map", "nowhere"], "no such map file"),
        (["encode", "s", "--model", "nothing", "--name", "x", "--column", "text"], "no such file"),
        (["encode", "s", "--model", "letters:old", "--name", "x"], "no column 'image'"),
        (["encode", "s", "--model", "letters:odd", "--name", "x", "--column", "text"], "imported"),
    ],
)
def test_bad_input_is_one_line_and_status_2(store, capsys, words, expected):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1


def test_help_of_the_group_imports_nothing_heavy():
    code = (
        "import sys; from understudy.cli import main; main(['update', '--help']); "
        "assert not {'torch', 'numpy', 'pyarrow', 'lance'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for word in ("encode", "fit", "apply"):
        assert f"update {word}" in out.stdout
