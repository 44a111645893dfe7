"""Our language models under lm-eval, against our own runner and lm-eval's own model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from understudy import models
from understudy.core.errors import ConfigError
from understudy.core.files import write_json
from understudy.evaluate.centered_results import read_results
from understudy.evaluate.lm_eval_adapter import lm_eval_model, run_lm_eval
from understudy.evaluate.lm_tasks_run import run_task
from understudy.evaluate.lm_tasks_spec import TaskSpec
from understudy.evaluate.perplexity import held_out_loss
from understudy.evaluate.perplexity_documents import encode_text
from understudy.evaluate.token_losses import ReadConfig
from understudy.models.language.coder import JsonCoder

pytest.importorskip("lm_eval", reason='lm-eval is not installed: pip install "understudy[evals]"')

END = "<|endoftext|>"
WORDS = "the cat sat on a mat while it rained and small dogs ran home over green hills".split()


def byte_tokenizer(trained=()):
    """A byte-level encoding; without training texts a token is a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 if trained else 257,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(list(trained) or [""], trainer)
    return backend


def coder(trained=()):
    return JsonCoder(byte_tokenizer(trained).to_str(), end=END)


def questions(count=24):
    draw = np.random.default_rng(0)

    def some(n):
        return " ".join(draw.choice(WORDS, n))

    return [
        {"query": some(5), "choices": [some(1), some(3), some(2)], "gold": int(draw.integers(3))}
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def model():
    tokenizer = coder()
    made = models.create("openlm-micro", seed=0, tokenizer=tokenizer).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.mul_(2)
    return made


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")

    def task(name, rows, lines):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
            f"    test: {folder / name}.jsonl\ntest_split: test\n{lines}"
        )

    task(
        "local_choice",
        questions(),
        "output_type: multiple_choice\ndoc_to_text: query\ndoc_to_choice: choices\n"
        "doc_to_target: gold\nmetric_list:\n- metric: acc\n- metric: acc_norm\n",
    )
    texts = [{"text": " ".join(WORDS * n)} for n in (1, 3, 5)]  # beyond the context of 128, too
    task(
        "local_text",
        texts,
        'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: text\n'
        "metric_list:\n- metric: bits_per_byte\n- metric: byte_perplexity\n",
    )
    task(
        "local_words",
        [{"context": q["query"], "continuation": q["choices"][0]} for q in questions()],
        "output_type: generate_until\ndoc_to_text: context\ndoc_to_target: continuation\n"
        "generation_kwargs:\n  until: ['q']\n  max_gen_toks: 8\n  do_sample: false\n"
        "metric_list:\n- metric: exact_match\n",
    )
    return folder


@pytest.fixture(scope="module")
def found(model, tasks):
    names = ["local_choice", "local_text", "local_words"]
    return run_lm_eval(model, names, include_path=tasks, bootstrap_iters=0)


def test_multiple_choice_is_our_runners(model, tasks, found, tmp_path):
    rows = questions()
    # lm-eval puts a space before each choice
    spec = TaskSpec(name="c", kind="multiple_choice", prefix_space="yes")
    ours = run_task(model, rows, spec)
    theirs = found["results"]["local_choice"]
    assert theirs["acc,none"] == ours.others["sum"]
    assert theirs["acc_norm,none"] == ours.others["characters"]
    assert 0 < theirs["acc,none"] < 1
    for sample, row in zip(found["samples"]["local_choice"], rows, strict=True):
        assert sample["doc"]["query"] == row["query"]
    file = write_json(tmp_path / "r.json", {"results": found["results"]})
    assert read_results(file).accuracies["local_choice"] == theirs["acc_norm,none"]


def test_losses_of_choices_are_our_runners(model, found):
    """The mean loss of right answers, from lm-eval's logged log-likelihoods."""
    spec = TaskSpec(name="c", kind="multiple_choice", prefix_space="yes")
    ours = run_task(model, questions(), spec).others["loss"]
    means = []
    for sample in found["samples"]["local_choice"]:
        gold = sample["doc"]["gold"]
        total = float(sample["filtered_resps"][gold][0])
        means.append(-total / len(f" {sample['doc']['choices'][gold]}"))
    assert np.mean(means) == pytest.approx(ours, abs=1e-5)


def test_bits_a_byte_are_our_held_out_loss(model, found):
    texts = [" ".join(WORDS * n) for n in (1, 3, 5)]
    documents = [encode_text(t, model.tokenizer, lead="end") for t in texts]
    read = ReadConfig(stride=model.context)
    ours = held_out_loss(model, documents, read).summary().bits_per_byte
    assert found["results"]["local_text"]["bits_per_byte,none"] == pytest.approx(ours, rel=1e-6)


def test_generated_answers_are_the_models(model, found):
    for sample in found["samples"]["local_words"]:
        ids = model.tokenizer.encode(sample["doc"]["context"])
        made = model.generate(model.tokenizer.decode(ids), _eight())
        assert sample["resps"][0][0] == made.split("q")[0]


def _eight():
    from understudy.models.language.options import GenerateConfig

    return GenerateConfig(method="greedy", max_tokens=8)


def test_an_unknown_task_is_named(model, tasks):
    with pytest.raises(ConfigError, match="there is no task 'local_choyce'"):
        run_lm_eval(model, ["local_choyce"], include_path=tasks)


class Wrapped(nn.Module):
    """A Transformers model as ours are called."""

    def __init__(self, inner, tokenizer, context):
        super().__init__()
        self.inner, self.tokenizer, self.context = inner, tokenizer, context
        self.vocab_size = inner.config.vocab_size

    def forward(self, ids, segments=None):
        return self.inner(input_ids=ids).logits


def test_lm_evals_own_model_gives_the_same():
    """The same Llama under lm-eval's Transformers model and under our adapter."""
    pytest.importorskip("accelerate", reason="lm-eval's Transformers model needs accelerate")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = byte_tokenizer([" ".join(WORDS)] * 4)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=48,
        initializer_range=0.5,
    )  # fmt: skip
    inner = LlamaForCausalLM(config).eval()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=END)
    theirs = HFLM(pretrained=inner, tokenizer=fast, max_length=48, device="cpu", batch_size=4)
    wrapped = Wrapped(inner, JsonCoder(backend.to_str(), end=END), 48).eval()
    ours = lm_eval_model(wrapped)

    def ask(kind, *args):
        return Instance(request_type=kind, doc={}, arguments=args, idx=0)

    pairs = [("the cat ", "sat on"), ("", "the mat"), ("small dogs", " ran home")]
    pairs += [(" ".join(WORDS * 3), " over green hills")]  # longer than the context
    requests = [ask("loglikelihood", *pair) for pair in pairs]
    for a, b in zip(ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True):
        assert a[0] == pytest.approx(b[0], abs=1e-3)
        assert a[1] == b[1]
    rolling = [ask("loglikelihood_rolling", " ".join(WORDS * n)) for n in (1, 2, 4)]
    np.testing.assert_allclose(
        ours.loglikelihood_rolling(rolling), theirs.loglikelihood_rolling(rolling), atol=2e-3
    )
    wanted = {"until": ["e"], "max_gen_toks": 8, "do_sample": False}
    asked = [ask("generate_until", text, dict(wanted)) for text in ("the cat", "small", "home")]
    assert ours.generate_until(asked) == theirs.generate_until(asked)
