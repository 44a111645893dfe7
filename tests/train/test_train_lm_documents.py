"""Language models on counted documents: batches, budget, weight decay, resuming."""

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, DataError
from understudy.data.sampler_counts import CountSampler
from understudy.data.tokens import TokenInfo, TokenStore
from understudy.models.text.train_tokenizer import train_byte_bpe
from understudy.train.lm_counts import CountLoader
from understudy.train.lm_documents import DocumentsConfig, train_documents
from understudy.train.optim import make_optimizer, trainable

TEXTS = [
    f"the {w} of the {v} is here" for w in ("cat", "dog", "cow") for v in ("sun", "sea", "sky")
]


@pytest.fixture(scope="module")
def coder():
    return train_byte_bpe(TEXTS, 280)


@pytest.fixture(scope="module")
def tokens(coder, tmp_path_factory):
    ids = [[*coder.encode(text), coder.end_id] for text in TEXTS]
    info = TokenInfo(
        kind="documents",
        tokenizer="tiny",
        tokenizer_hash=coder.fingerprint(),
        vocab_size=coder.vocab_size,
        eot_id=coder.end_id,
    )
    rows = {
        "id": [f"d{i}" for i in range(len(ids))],
        "tokens": [np.array(row, np.uint16) for row in ids],
        "doc": [f"d{i}" for i in range(len(ids))],
    }
    return TokenStore.create(tmp_path_factory.mktemp("tokens") / "t", [rows], info)


def config(**changes):
    shared = {
        "model": "openlm-micro",
        "budget": 640,
        "context": 16,
        "tokens_per_step": 64,
        "lr": 1e-2,
    }
    return DocumentsConfig(**{**shared, **changes})


def test_batches_hold_the_documents_tokens_in_the_streams_order(tokens):
    counts = np.array([2, 0, 1, 3, 1, 1, 0, 2, 1])
    sampler = CountSampler(tokens.lengths + 1, counts, 16, 2, 3)
    documents = tokens.take(np.arange(tokens.num_rows))
    stream = np.concatenate([documents[d] for d in sampler.order])
    plain = CountLoader(tokens, sampler)
    masked = CountLoader(tokens, sampler, mask_documents=True)
    for step, batch in enumerate(plain(0, sampler.steps)):
        assert "segments" not in batch
        for row in range(2):
            first = (2 * step + row) * 16
            assert batch["ids"][row].tolist() == stream[first : first + 16].tolist()
            assert batch["targets"][row].tolist() == stream[first + 1 : first + 17].tolist()
        found = masked.batch(step)
        after_end = batch["ids"] == tokens.info.eot_id
        assert torch.equal(found["segments"][:, 1:].long(), after_end[:, :-1].cumsum(1))
        assert torch.equal(found["targets"], batch["targets"].masked_fill(after_end, -100))


def test_it_trains_and_goes_on_to_the_same_weights(tokens, coder, tmp_path):
    counts = np.full(tokens.num_rows, 10)
    model, facts = train_documents(tokens, counts, config(), coder, tmp_path / "a")
    assert facts["steps"] == 10
    assert facts["tokens"] == 640
    assert facts["epochs"] == pytest.approx(640 / facts["unique_tokens"])
    assert facts["train_nll"] < np.log(coder.vocab_size)
    again, _ = train_documents(tokens, counts, config(), coder, tmp_path / "b")
    done, same = train_documents(tokens, counts, config(), coder, tmp_path / "a")
    assert same["train_nll"] == facts["train_nll"]
    for a, b, c in zip(model.parameters(), again.parameters(), done.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_budgets_and_tokenizers_that_do_not_fit_are_refused(tokens, coder, tmp_path):
    ones = np.ones(tokens.num_rows, np.int64)
    with pytest.raises(ConfigError, match="the budget of 6,400 needs 100"):
        train_documents(tokens, ones, config(budget=6_400), coder, tmp_path / "a")
    other = train_byte_bpe(["other texts here"], 270)
    with pytest.raises(DataError, match="tokenise the texts again"):
        train_documents(tokens, ones * 10, config(), other, tmp_path / "b")
    with pytest.raises(ConfigError, match="not a multiple of the context"):
        config(tokens_per_step=40)
    with pytest.raises(ConfigError, match="at least 2 are needed"):
        config(budget=64)


@pytest.mark.parametrize("decay", [0.1, 3.0])
def test_weight_decay_reaches_the_matrices_and_shrinks_them_exactly(coder, decay):
    from understudy import models

    chosen = config(weight_decay=decay).train()
    model = models.create("openlm-micro", tokenizer=coder, seed=0)
    named = trainable(model)
    optimizer = make_optimizer(named, chosen)
    before = {name: p.detach().clone() for name, p in named.items()}
    for p in named.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    shrunk = 0
    for name, p in named.items():
        factor = 1 - chosen.lr * decay if p.ndim == 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, rtol=1e-6, atol=0)
        shrunk += p.ndim == 2
    assert shrunk > 10
