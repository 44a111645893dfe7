"""`understudy evaluate text MODEL STORE_OR_JSONL`."""

import json

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as backends
from tokenizers.trainers import BpeTrainer

from understudy import models
from understudy.cli import main
from understudy.data.store import Store
from understudy.evaluate.core_tasks import CORE, task_table
from understudy.models.language.coder import JsonCoder

END = "<end>"
TEXTS = ["the cat sat on the mat", "a dog ran over the green hill " * 12, "it rained all day"]


def coder():
    backend = Tokenizer(backends.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=280, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return JsonCoder(backend.to_str(), end=END)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    model = models.create("openlm-micro", seed=0, tokenizer=coder()).eval()
    models.save(model, root / "run" / "model.safetensors")
    rows = [{"text": t, "source": "ab"[i % 2]} for i, t in enumerate(TEXTS)]
    lines(root / "docs.jsonl", rows)
    ids = {"id": ["x", "y", "z"], "text": TEXTS, "split": ["test", "test", "train"]}
    Store.create(root / "store", [ids])
    (root / "tasks").mkdir()
    choice = {"query": "the cat", "choices": ["sat", "ran"], "gold": 0}
    lines(root / "tasks" / "copa.jsonl", [choice, {**choice, "gold": 1}])
    return root


def run(*arguments):
    return main(["evaluate", "text", *map(str, arguments)])


def test_documents_by_group(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(place / "run", place / "docs.jsonl", "--by", "source", "--positions",
               "--context", 16, "--out", out) == 0  # fmt: skip
    text = capsys.readouterr()
    assert "source a" in text.out
    assert "bits/byte" in text.out
    assert str(out / "results.json") in text.err
    found = json.loads((out / "results.json").read_text())
    assert found["held_out"]["all"]["documents"] == 3
    parts = [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]
    total = sum(p["nll"] for p in parts) / sum(p["tokens"] for p in parts)
    assert total == pytest.approx(found["held_out"]["all"]["loss"])
    assert found["positions"][-1]["stop"] == 17


def test_a_store_gives_the_same_as_its_texts(place, tmp_path, capsys):
    assert run(place / "run", place / "store", "--json", "--out", tmp_path) == 0
    store = json.loads(capsys.readouterr().out)["held_out"]["all"]
    assert run(place / "run", place / "docs.jsonl", "--json", "--out", tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["held_out"]["all"] == store
    assert run(place / "run", place / "store", "--split", "train", "--json", "--out", tmp_path) == 0
    assert json.loads(capsys.readouterr().out)["held_out"]["all"]["documents"] == 1


def test_tasks_and_core(place, tmp_path, capsys):
    assert run(place / "run", "--tasks", place / "tasks", "--out", tmp_path) == 0
    text = capsys.readouterr().out
    assert "CORE v2: N/A (21 tasks are missing)" in text
    found = json.loads((tmp_path / "results.json").read_text())
    (task,) = found["tasks"]
    assert (task["accuracy"], task["count"]) == (0.5, 2)
    assert found["centered"]["core"] == "N/A"
    assert found["centered"]["centered"] == {"copa": 0.0}
    assert len(found["centered"]["missing_core"]) == 21
    # all tasks of the suite: both scores, with the version beside them
    folder = tmp_path / "suite"
    folder.mkdir()
    source = place / "tasks" / "copa.jsonl"
    for name in task_table("v1").tasks:
        (folder / f"{name}.jsonl").write_bytes(source.read_bytes())
    assert run(place / "run", "--tasks", folder, "--version", "v1", "--json",
               "--out", tmp_path) == 0  # fmt: skip
    centered = json.loads(capsys.readouterr().out)["centered"]
    assert centered["version"] == "v1"
    table = task_table("v1")
    hand = [(0.5 - table.tasks[n].baseline / 100) / (1 - table.tasks[n].baseline / 100)
            for n in CORE]  # fmt: skip
    assert centered["core"] == pytest.approx(sum(hand) / 22)
    assert isinstance(centered["extended"], float)


def test_long_documents(place, tmp_path, capsys):
    row = {"question": "q", "answers": ["a"], "documents": ["x", "y"], "gold": 1}
    asked = lines(tmp_path / "mdqa.jsonl", [row])
    assert run(place / "run", "--long-context", 120, 128, "--depths", 0, 1, "--passkeys", 2,
               "--out", tmp_path) == 0  # fmt: skip
    found = json.loads((tmp_path / "results.json").read_text())
    assert [(c["length"], c["depth"]) for c in found["passkey"]] == [
        (120, 0), (120, 1), (128, 0), (128, 1),
    ]  # fmt: skip
    assert run(place / "run", "--multi-document", asked, "--num-documents", 1, 2, "--out",
               tmp_path) == 0  # fmt: skip
    assert "prompts cut" in capsys.readouterr().out


def test_mistakes_are_one_line(place, tmp_path, capsys):
    for arguments, message in (
        ((place / "run",), "give documents"),
        ((place / "run", place / "none.jsonl"), "none.jsonl"),
        ((place / "run", "--long-context", 999), "999 tokens are more than the context of 128"),
        ((place / "run", place / "docs.jsonl", "--split", "test"), "--split is for stores"),
        ((place / "run", "--tasks", place / "tasks", "--version", "v9"), "no version 'v9'"),
        ((place / "run", "--tasks", place / "tasks", "--positions"), "--positions needs"),
        ((place / "run", place / "docs.jsonl", "--positions"), "no document has the 129 tokens"),
    ):
        assert run(*arguments, "--out", tmp_path) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    models.save(models.create("cnn-tiny", seed=0).eval(), tmp_path / "cnn.safetensors")
    assert run(tmp_path / "cnn.safetensors", place / "docs.jsonl", "--out", tmp_path) == 2
    assert "is no language model" in capsys.readouterr().err
