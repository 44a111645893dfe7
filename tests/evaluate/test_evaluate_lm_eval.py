"""The adapter for lm-eval, against a stand-in for its base class.

`tests/parity/test_parity_lm_eval.py` runs the real one.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from language_toys import Bigram, Bytes, Recurrent, slow_losses

from understudy.core.errors import ConfigError, DataError, MissingExtraError
from understudy.evaluate import lm_eval_adapter
from understudy.evaluate.lm_eval_adapter import lm_eval_model
from understudy.evaluate.token_losses import windows

CODER = Bytes()


class TemplateLM:
    """What the adapter needs of lm-eval's class of this name."""

    def __init__(self):
        self.cached = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *a: self.cached.append(a))


@pytest.fixture
def harness(monkeypatch):
    module = ModuleType("lm_eval.api.model")
    module.TemplateLM = TemplateLM
    for name in ("lm_eval", "lm_eval.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", module)
    lm_eval_adapter.adapter_class.cache_clear()
    yield
    lm_eval_adapter.adapter_class.cache_clear()


def request(*args):
    return SimpleNamespace(args=args)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_a_missing_harness_is_named():
    lm_eval_adapter.adapter_class.cache_clear()
    with pytest.raises(MissingExtraError, match=r"needs lm_eval.*: pip install .*understudy\[eval"):
        lm_eval_model(Recurrent())


@pytest.mark.usefixtures("harness")
def test_loglikelihoods():
    model = Recurrent(context=16)
    lm = lm_eval_model(model)
    pairs = [("the dog", " ran"), ("x" * 40, "yz"), ("", "a")]
    encoded = [(p, CODER.encode(p[0]) or [256], CODER.encode(p[1])) for p in pairs]
    found = lm._loglikelihood_tokens(encoded)
    for (_, context, scored), (total, greedy) in zip(encoded, found, strict=True):
        ids = [*context, *scored][-17:]
        expected = slow_losses(model, ids, last=len(scored))
        assert total == pytest.approx(-expected.sum(), abs=1e-4)
        assert not greedy
    assert len(lm.cached) == 3
    sure = lm_eval_model(Bigram({97: 98, 98: 99}))
    assert [g for _, g in sure._loglikelihood_tokens([((), [97], [98, 99]), ((), [97], [99])])] == [
        True,
        False,
    ]
    with pytest.raises(DataError, match="continuation of 17 tokens; the model reads 1 to 16"):
        lm._loglikelihood_tokens([((), [1], [2] * 17)])


@pytest.mark.usefixtures("harness")
def test_rolling_loglikelihood_scores_all_of_a_text_once():
    model = Recurrent(context=16)
    text = "a text that is longer than the context of the model"
    (total,) = lm_eval_model(model).loglikelihood_rolling([request(text)])
    ids = np.array([256, *text.encode()])
    expected = 0.0
    for start, stop, first in windows(len(ids) - 1, 16, 16):
        expected += slow_losses(model, ids[start : stop + 1])[first - start :].sum()
    assert total == pytest.approx(-expected, abs=1e-3)


@pytest.mark.usefixtures("harness")
def test_generation_stops_and_is_greedy_only():
    alphabet = {i: i + 1 for i in range(97, 122)}
    lm = lm_eval_model(Bigram(alphabet, context=64))
    requests = [
        request("a", {"until": ["e"], "max_gen_toks": 8}),
        request("k", {"until": "q", "max_gen_toks": 8}),
        request("a" * 100, {"max_gen_toks": 3}),
        request("", {"until": ["x"], "max_gen_toks": 2}),
    ]
    found = lm.generate_until(requests)
    assert found[:3] == ["bcd", "lmnop", "bcd"]
    assert len(found[3]) <= 2
    with pytest.raises(ConfigError, match="samples its answers"):
        lm.generate_until([request("a", {"do_sample": True})])
    with pytest.raises(ConfigError, match="max_gen_toks 64 leaves no room .* of 64"):
        lm.generate_until([request("a", {"max_gen_toks": 64})])
    assert lm._options({}) == ((), 32)
    assert lm.eot_token_id == 256
    assert lm.tok_encode("ab", add_special_tokens=False) == [97, 98]
    assert lm.tokenizer_name == CODER.fingerprint()
