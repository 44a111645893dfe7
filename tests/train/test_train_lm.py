"""Training of language models: batches, lengths, ranks, going on, what is refused."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lm_toy
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data.sampler_mixture import MixtureSampler
from understudy.data.samplers import SequentialSampler, ShuffledSampler
from understudy.models.text.train_tokenizer import train_words
from understudy.objectives.language import IGNORE, causal_lm
from understudy.train.lm import LMStep, check_tokens, lm_sampler, make_language_model, train_lm
from understudy.train.lm_batches import JoinedTokens, LMBatches, MemoryTokens, lm_batch
from understudy.train.lm_config import LMConfig

# -- batches


def test_equal_rows_are_cut_into_inputs_and_targets():
    rows = [np.array([1, 2, 3, 4], np.uint16), np.array([65_535, 6, 7, 8], np.uint16)]
    batch = lm_batch(rows)
    assert batch["ids"].tolist() == [[1, 2, 3], [65_535, 6, 7]]
    assert batch["targets"].tolist() == [[2, 3, 4], [6, 7, 8]]
    assert {v.dtype for v in batch.values()} == {np.dtype(np.int64)}
    assert set(lm_batch(rows, [np.array([4]), np.array([4])])) == {"ids", "targets"}


def test_short_rows_are_filled_up_and_documents_numbered():
    rows = [np.array([1, 2, 3, 4, 5]), np.array([6, 7, 8])]
    batch = lm_batch(rows, [np.array([2, 2, 1]), np.array([3])])
    assert batch["ids"].tolist() == [[1, 2, 3, 4], [6, 7, 0, 0]]
    # 3 begins a document after 2, and 5 one after 4: neither follows from what was before
    assert batch["targets"].tolist() == [[2, IGNORE, 4, IGNORE], [7, 8, IGNORE, IGNORE]]
    assert batch["segments"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    plain = lm_batch(rows)
    assert plain["targets"].tolist() == [[2, 3, 4, 5], [7, 8, IGNORE, IGNORE]]


def test_packed_rows_cost_what_their_documents_cost_alone():
    model, draw = lm_toy.model(), np.random.default_rng(1)
    documents = [draw.integers(0, 32, n) for n in (6, 3, 9, 2, 5, 7)]
    rows = [np.concatenate(documents[:4]), np.concatenate(documents[4:])]
    tokens = MemoryTokens(rows, [[6, 3, 9, 2], [5, 7]])
    sampler = SequentialSampler(2, 2)
    packed = LMBatches(tokens, sampler, mask_documents=True).load(0)
    found = LMStep(z_loss=1e-3)(model, packed)
    losses, counts = [], []
    for document in documents:
        batch = {"targets": torch.tensor(document[1:])[None]}
        out = causal_lm(model(torch.tensor(document[:-1])[None]), batch, z_loss=1e-3)
        losses.append(float(out["loss"].detach()))
        counts.append(len(document) - 1)
    assert float(found["tokens"]) == sum(counts)
    assert float(found["loss"].detach()) == pytest.approx(np.average(losses, weights=counts))
    crossing = LMBatches(tokens, sampler).load(0)
    assert "segments" not in crossing
    assert int((crossing["targets"] != IGNORE).sum()) == len(rows[0]) + len(rows[1]) - 2


def test_padding_changes_no_loss_and_no_gradient():
    model = lm_toy.model()
    tokens = MemoryTokens(lm_toy.sequences(4))
    batch = LMBatches(tokens, SequentialSampler(4, 4)).load(0)
    assert (batch["targets"] == IGNORE).any()
    found = LMStep()(model, batch)
    found["loss"].backward()
    padded = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    total = float(found["tokens"])
    for row in tokens.take(range(4)):
        one = {k: torch.from_numpy(v) for k, v in lm_batch([row]).items()}
        out = LMStep()(model, one)
        (out["loss"] * out["tokens"] / total).backward()
    for ours, theirs in zip(padded, model.parameters(), strict=True):
        assert torch.allclose(ours, theirs.grad, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_by_number(workers):
    tokens = MemoryTokens(lm_toy.sequences(20))
    batches = LMBatches(tokens, ShuffledSampler(20, 4, seed=3), workers=workers)
    found = list(batches(3, 9))
    assert len(found) == 9
    for number, batch in enumerate(found, 3):
        again = batches.load(number)
        assert all(torch.equal(batch[key], again[key]) for key in ("ids", "targets", "rows"))


def test_sources_laid_end_to_end():
    parts = {"a": MemoryTokens([[1, 2], [3, 4, 5]]), "b": MemoryTokens([[6, 7], [8, 9]])}
    joined = JoinedTokens(parts)
    assert joined.offsets == {"a": 0, "b": 2}
    assert joined.lengths.tolist() == [1, 2, 1, 1]
    assert [row.tolist() for row in joined.take([3, 0, 1])] == [[8, 9], [1, 2], [3, 4, 5]]
    assert [row.tolist() for row in joined.segments([1, 2])] == [[3], [2]]
    assert joined.fingerprint != JoinedTokens(dict(reversed(parts.items()))).fingerprint
    sources = {name: SequentialSampler(2, 1) for name in parts}
    mixed = MixtureSampler(sources, {"a": 1, "b": 1}, mode="all", offsets=joined.offsets)
    batch = LMBatches(joined, mixed).load(1)
    assert batch["ids"].tolist() == [[3, 4], [8, 0]]
    with pytest.raises(DataError, match="rows 4 to 4: there are 0 to 3 in a, b"):
        joined.take([4])


# -- runs


def test_a_run_learns_and_its_folder_holds_a_model(tmp_path):
    tokens = MemoryTokens(lm_toy.sequences(64, longest=0))
    config = lm_toy.settings(30, tokens_per_step=256, train={"log_every": 10})
    seen = []

    def evaluate(model):
        seen.append(model.training)
        return {"perplexity": 1.0}

    model = lm_toy.model()
    run = train_lm(tokens, model, config, tmp_path, evaluate=evaluate)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["nll"] for line in lines if "nll" in line]
    assert 1.5 < losses[0]
    assert losses[-1] < 0.5 * losses[0]
    assert run.metrics["train/tokens"] == 256
    assert run.metrics["train/loss"] == pytest.approx(
        run.metrics["train/nll"] + run.metrics["train/z_loss"]
    )
    assert seen == [False]
    again = models.load(tmp_path / "model.safetensors")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(again(ids)["logits"], model(ids)["logits"])
    # a finished run is not run again: its weights are loaded
    fresh = lm_toy.model(seed=9)
    train_lm(tokens, fresh, config, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_goes_on_ends_with_the_same_bytes(tmp_path, precision):
    tokens = MemoryTokens(lm_toy.sequences(24))
    train = {"checkpoint_every": 2, "precision": precision, "keep_checkpoints": 9}
    config = lm_toy.settings(6, train=train)
    for name in ("whole", "parts"):
        train_lm(tokens, lm_toy.model(), config, tmp_path / name, sampler=lm_toy.Uneven())
    parts = tmp_path / "parts"
    for name in ("record.json", "model.safetensors"):
        (parts / name).unlink()
    for folder in sorted((parts / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(folder)
    train_lm(tokens, lm_toy.model(seed=5), config, parts, sampler=lm_toy.Uneven())
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    # other tokens are another run
    (parts / "record.json").unlink()
    other = MemoryTokens(lm_toy.sequences(24, seed=8))
    with pytest.raises(ConfigError, match="tokens"):
        train_lm(other, lm_toy.model(), config, parts, sampler=lm_toy.Uneven())


def test_two_ranks_with_unequal_targets_equal_one(tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(lm_toy.__file__)), str(tmp_path / "two")],
            env={**os.environ, **known, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err[-3000:]
        assert out.endswith("ok\n")
    tokens = MemoryTokens(lm_toy.sequences())
    train_lm(tokens, lm_toy.model(), lm_toy.settings(), tmp_path / "one", sampler=lm_toy.Uneven())
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for key in one:
        assert torch.allclose(one[key], two[key], atol=2e-5), key


def bucket_store(path):
    from understudy.data.tokens import FACTS, TokenInfo, TokenStore

    info = TokenInfo(
        kind="buckets", tokenizer="toy", tokenizer_hash="0" * 64, vocab_size=lm_toy.VOCABULARY,
        eot_id=0, min_log2=3, max_log2=5,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    sizes = [8] * 16 + [16] * 8 + [32] * 4
    rows = [
        (np.arange(size + 1) + draw.integers(32)).astype(np.uint16) % lm_toy.VOCABULARY
        for size in sizes
    ]
    batch = {
        "id": [f"row-{i}" for i in range(len(rows))],
        "tokens": rows,
        "bucket": [size.bit_length() - 1 for size in sizes],
    }
    return TokenStore.create(path, [batch], info, facts={"bucket": FACTS["bucket"]})


def test_buckets_train_with_another_length_each_step(tmp_path):
    store = bucket_store(tmp_path / "s")
    config = LMConfig(
        model="openlm-micro",
        tokens_per_step=64,
        cycles=2,
        train=lm_toy.settings(6).train,
    )
    sampler = lm_sampler(store, config)
    shapes = [tuple(LMBatches(store, sampler).load(n)["ids"].shape) for n in range(6)]
    assert sorted(set(shapes)) == [(2, 32), (4, 16), (8, 8)]
    run = train_lm(store, None, config, tmp_path / "run")
    assert run.metrics["train/tokens"] == 64
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["run"]["data"]["loader"]["sampler"]["kind"] == "buckets"
    made = models.load(tmp_path / "run" / "model.safetensors")
    assert made.vocab_size == lm_toy.VOCABULARY
    with pytest.raises(DataError, match="of tokenizer toy"):
        check_tokens(store, models.create("openlm-micro", tokenizer=train_words(["a b"] * 3)))
    with pytest.raises(ModelError, match="tokenizer toy has 32 ids, but openlm-micro has 9"):
        check_tokens(store, models.create("openlm-micro", **{"decoder.vocab_size": 9}))


def test_starting_from_weights(tmp_path):
    path = models.save(lm_toy.model(seed=4), tmp_path / "m.safetensors")
    tokens = MemoryTokens(lm_toy.sequences())
    config = replace(lm_toy.settings(), model=str(path))
    found = make_language_model(config, tokens)
    assert torch.equal(found.decoder.tokens.weight, lm_toy.model(seed=4).decoder.tokens.weight)
    with pytest.raises(ConfigError, match="holds weights, whose configuration cannot change"):
        make_language_model(replace(config, changes={"decoder.depth": 3}), tokens)


# -- what is refused


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match="row 1 of the batch has 1 tokens; training needs"):
        lm_batch([np.array([1, 2]), np.array([3])])
    tokens = MemoryTokens([[1, 2, 3], [4]])
    with pytest.raises(DataError, match=r"batch 0 \(rows 0, 1\): row 1 of the batch"):
        LMBatches(tokens, SequentialSampler(2, 2)).load(0)
    with pytest.raises(DataError, match=r"row 0: segments of \[2, 2\] tokens, but it has 3"):
        MemoryTokens([[1, 2, 3]], [[2, 2]])
    with pytest.raises(ConfigError, match="at least one source"):
        JoinedTokens({})
    single = LMBatches(
        MemoryTokens([[1, 2, 3]], [[1, 1, 1]]), SequentialSampler(1, 1), mask_documents=True
    ).load(0)
    with pytest.raises(DataError, match="a batch has no token to learn"):
        LMStep().check(single)
    long = MemoryTokens([np.zeros(200, np.uint16)] * 2)
    with pytest.raises(ModelError, match="rows of up to 199 tokens, but openlm-micro has a"):
        train_lm(long, lm_toy.model(), lm_toy.settings(), tmp_path / "x")
    even = MemoryTokens([np.zeros(17, np.uint16)] * 8)
    with pytest.raises(ConfigError, match="100 tokens are not whole rows of 16.*take 96 or 112"):
        lm_sampler(even, lm_toy.settings(tokens_per_step=100))
    with pytest.raises(ConfigError, match="tokens_per_step: give it, or a sampler"):
        lm_sampler(even, lm_toy.settings(tokens_per_step=0))
    with pytest.raises(ModelError, match="cnn-tiny is a Classifier, not a language model"):
        make_language_model(LMConfig(model="cnn-tiny"), even)
    for change, message in (
        ({"z_loss": -1.0}, "LMConfig.z_loss: expected at least 0"),
        ({"cycles": 0}, "LMConfig.cycles: expected at least 1"),
        ({"documents": "masks"}, "LMConfig.documents: 'masks' is not one of auto, mask"),
    ):
        with pytest.raises(ConfigError, match=message):
            LMConfig(**change)
