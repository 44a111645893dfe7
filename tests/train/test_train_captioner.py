"""Captioners: trained, fine-tuned and asked to write."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from student_world import few_steps, pair_store

from understudy import models
from understudy.core.errors import ConfigError
from understudy.data.store import Store
from understudy.evaluate.held_out import held_out_rows
from understudy.evaluate.run import evaluate_model
from understudy.models.runs import load_run
from understudy.reinforce.config import ReinforceConfig, TeacherSpec
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers import create
from understudy.train.captioner import (
    CaptionerConfig,
    captioner_loader,
    make_captioner,
    train_captioner,
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pair_store(tmp_path_factory.mktemp("pairs") / "store")


def _config(**changes) -> CaptionerConfig:
    base = {"vocab_size": 560, "train": few_steps(), "seed": 1, "workers": 0}
    return CaptionerConfig(**{**base, **changes})


def test_both_losses_fall(pairs, tmp_path):
    config = _config(
        captioner="template", train=few_steps(60, lr=3e-3, log_every=20), rows="split = 'train'"
    )
    result = train_captioner(pairs, None, config, tmp_path)
    first = config.vocab_size
    assert result.train["captioning"] < 0.8 * torch.tensor(first).log()
    assert {"contrastive", "captioning", "loss"} <= set(result.train)
    assert result.facts["passes"] == 12.0


def test_texts_come_from_the_column_or_from_a_captioner(pairs):
    for captioner, column in (("", "text"), ("template", "caption.template")):
        config = _config(captioner=captioner)
        model = make_captioner(pairs, config)
        batch = captioner_loader(pairs, model, config).load(0)
        stored = pairs.take(batch["rows"].numpy(), [column]).column(0).to_pylist()
        for ids, text in zip(batch["texts"], stored, strict=True):
            wanted = [text] if isinstance(text, str) else text
            said = model.tokenizer.decode(ids.tolist()).replace(" ", "")
            # a text that is too long loses words at its end
            assert any(w.lower().replace(" ", "").startswith(said) for w in wanted)


def test_fine_tuning_starts_from_a_run_and_keeps_its_tokenizer(pairs, tmp_path):
    web = train_captioner(pairs, None, _config(), tmp_path / "web")
    few = _config(model=str(web.path), captioner="template", train=few_steps(2, lr=1e-7))
    tuned = train_captioner(pairs, None, few, tmp_path / "tuned")
    a, b = load_run(web.path), load_run(tuned.path)
    assert a.tokenizer.fingerprint() == b.tokenizer.fingerprint()
    assert torch.allclose(a.decoder.head.weight, b.decoder.head.weight, atol=1e-5)
    with pytest.raises(ConfigError, match="holds weights, whose configuration cannot change"):
        make_captioner(pairs, replace(few, changes={"embed_dim": 8}))


def test_a_stopped_run_goes_on_to_the_same_bytes(pairs, tmp_path):
    config = _config(train=few_steps(4, checkpoint_every=1))
    train_captioner(pairs, None, config, tmp_path / "whole")
    limited = replace(config, train=replace(config.train, seconds_limit_s=1e-6))
    assert not train_captioner(pairs, None, limited, tmp_path / "parts").finished
    assert train_captioner(pairs, None, config, tmp_path / "parts").finished
    name = "model.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_captioner_is_evaluated_like_a_clip(pairs, tmp_path):
    model = make_captioner(pairs, _config()).eval()
    found = evaluate_model(model, pairs, rows=held_out_rows(pairs), tasks=("retrieval",))
    assert 0 <= found["retrieval.mean_r1"] <= 1


@pytest.fixture(scope="module")
def captioner(pairs, tmp_path_factory):
    """Return the run of a captioner that knows the scenes' words a little."""
    config = _config(captioner="template", train=few_steps(40, lr=3e-3))
    return train_captioner(pairs, None, config, tmp_path_factory.mktemp("c") / "run").path


def _teacher(captioner, **options):
    path = str(captioner / "model.safetensors")
    return create(TeacherSpec(name="cap", path=path, options=options))


def _images(count: int = 3):
    return [torch.randint(0, 255, (48, 48, 3), dtype=torch.uint8).numpy() for _ in range(count)]


def test_an_own_captioner_is_a_teacher(captioner):
    teacher = _teacher(captioner)
    assert teacher.capabilities == {"embed_images", "embed_texts", "caption"}
    images = _images()
    found = teacher.caption(images, 4, [1, 2, 3])
    assert [len(row) for row in found] == [4, 4, 4]
    assert teacher.caption(images[1:2], 4, [2])[0] == found[1]
    assert teacher.caption(images, 4, [4, 5, 6]) != found
    assert not any("." in text for row in found for text in row)
    fixed = _teacher(captioner, fixed_length=True)
    assert fixed.caption(images, 4, [1, 2, 3]) == found
    assert fixed.fingerprint == teacher.fingerprint


def test_methods_of_writing(captioner):
    images = _images()
    greedy = _teacher(captioner, method="greedy").caption(images, 1, [1, 2, 3])
    assert greedy == _teacher(captioner, method="greedy").caption(images, 1, [7, 8, 9])
    narrow = _teacher(captioner, top_k=1).caption(images, 2, [1, 2, 3])
    assert all(row == [best[0]] * 2 for row, best in zip(narrow, greedy, strict=True))
    beam = _teacher(captioner, method="beam", beams=3)
    found = beam.caption(images, 3, [1, 2, 3])
    assert found == beam.caption(images, 3, [7, 8, 9])
    prints = {
        _teacher(captioner, **options).fingerprint
        for options in ({}, {"top_k": 5}, {"method": "beam"}, {"top_p": 0.5}, {"max_tokens": 9})
    }
    assert len(prints) == 5


def test_captions_are_written_beside_the_images(pairs, captioner, tmp_path):
    from understudy.data import scenes

    store = scenes.to_store("pairs", tmp_path / "s", train=10, teacher=0, test=0, masks=False)
    spec = TeacherSpec(name="own", path=str(captioner / "model.safetensors"))
    config = ReinforceConfig(captioners=(spec,), captions=2, batch_size=8, unit_rows=4)
    report = reinforce(store, config)
    rows = store.take(range(10), ["caption.own"]).column(0).to_pylist()
    assert all(len(row) == 2 and all(row) for row in rows)
    assert "captioner own" in report.seconds
    card = store.card("caption.own")
    assert card.config["captions"] == 2
    assert set(report.counts) <= {"own: empty", "own: repeated", "own: replaced"}
    # the same whatever the batches and units
    other = scenes.to_store("pairs", tmp_path / "o", train=10, teacher=0, test=0, masks=False)
    reinforce(other, replace(config, batch_size=4, unit_rows=3))
    assert Store.open(tmp_path / "o").take(range(10), ["caption.own"]).column(0).to_pylist() == rows


def test_bad_input_captioner(pairs, captioner, tmp_path):
    with pytest.raises(ConfigError, match="mobileclip-nano is a CLIP, not a captioner"):
        train_captioner(pairs, None, _config(model="mobileclip-nano"), tmp_path)
    with pytest.raises(ConfigError, match="'cnn-tiny' is a classifier"):
        train_captioner(pairs, None, _config(model="cnn-tiny"), tmp_path)
    bare = models.create("coca-nano", seed=0)
    with pytest.raises(ConfigError, match="coca-nano has no tokenizer"):
        train_captioner(pairs, bare, _config(), tmp_path)
    with pytest.raises(ConfigError, match="above 0 for captioning"):
        _config(captioning=0.0)
    with pytest.raises(ConfigError, match="as an expression it matches none"):
        train_captioner(pairs, None, _config(captioner="b.*"), tmp_path)
    images = _images()
    with pytest.raises(ConfigError, match="greedy writes one caption an image and 2 are asked"):
        _teacher(captioner, method="greedy").caption(images, 2)
    with pytest.raises(ConfigError, match="5 beams give at most as many captions and 6 are asked"):
        _teacher(captioner, method="beam").caption(images, 6)
    with pytest.raises(ConfigError, match="40 tokens do not fit the captioner's context; give at"):
        _teacher(captioner, max_tokens=40)
    with pytest.raises(ConfigError, match="teacher 'cap'.options.top_p: expected a number above"):
        _teacher(captioner, top_p=1.5)


def test_the_command(pairs, tmp_path, capsys):
    from understudy.cli import main

    words = ["train", "captioner", pairs.path, "--vocab-size", "560", "--workers", "0"]
    words += ["--train.steps", "2", "--train.batch-size", "8", "--train.warmup-steps", "0"]
    out = str(tmp_path / "run")
    assert main([*words, "--out", out]) == 0
    assert "retrieval.mean_r1" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "tuned"), "--model", out]) == 0
    capsys.readouterr()
    assert main(["train", pairs.path, "--model", "coca-nano", "--lam", "0", "--out", out]) == 2
    assert "coca-nano is a captioner; use train_captioner" in capsys.readouterr().err
    assert main(words) == 2
    assert "say where the run goes" in capsys.readouterr().err
