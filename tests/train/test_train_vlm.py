"""Stages of a vision-language model: what learns, what counts, how a run goes on."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from understudy.core.errors import ConfigError, DataError
from understudy.data import scenes
from understudy.data.store import Store
from understudy.evaluate.vlm import answer_rows, ask, scores
from understudy.models.image.vit_config import VitConfig
from understudy.models.language.options import GenerateConfig
from understudy.objectives.language import IGNORE, language_modelling, next_token_loss
from understudy.train.config import TrainConfig
from understudy.train.vlm import VLMStep, set_trainable, stage_loader, train_stage, train_vlm
from understudy.train.vlm_config import VLMStage, scaled, two_stage
from vlm_toys import toy

BASE = TrainConfig(steps=1, device="cpu", log_every=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return scenes.to_store(
        "qa", tmp_path_factory.mktemp("qa") / "s", train=6, test=2, seed=1000, size=128
    )


def small_stage(**changes):
    return VLMStage(**{"name": "all", "lr": 1e-3, "batch_size": 2, "steps": 2, **changes})


# -- the loss


def test_the_loss_counts_labelled_tokens_only():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator, requires_grad=True)
    labels = torch.tensor([[3, IGNORE, 2, 6, IGNORE], [IGNORE] * 4 + [1]])
    loss = next_token_loss(logits, labels)
    log_p = logits.detach().log_softmax(-1)
    expected = -(log_p[0, 1, 2] + log_p[0, 2, 6] + log_p[1, 3, 1]) / 3
    assert torch.allclose(loss.detach(), expected)
    loss.backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == [[0, 1], [0, 2], [1, 3]]
    found = language_modelling({"logits": logits, "labels": labels}, {})
    assert torch.allclose(found["loss"], loss)
    assert next_token_loss(logits, torch.full((2, 5), IGNORE)).item() == 0.0
    with pytest.raises(DataError, match="labels of"):
        next_token_loss(logits, labels[:, :3])


def test_images_and_prompts_are_not_learned(store):
    model = toy()
    batch = stage_loader(store, model, small_stage(), workers=0).load(0)
    model.train()
    out = model(batch["ids"], batch["pixels"], batch["labels"], batch["views"])
    out["logits"].retain_grad()
    language_modelling(out, {})["loss"].backward()
    labelled = out["labels"] != IGNORE
    before = torch.cat([labelled[:, 1:], torch.zeros_like(labelled[:, :1])], 1)
    touched = out["logits"].grad.abs().sum(-1) > 0
    assert torch.equal(touched, before)
    for row, (ids, labels) in enumerate(zip(batch["ids"], batch["labels"], strict=True)):
        answers = labels[labels != IGNORE]
        assert out["labels"][row][labelled[row]].tolist() == answers.tolist()
        assert int(out["valid"][row].sum()) == len(ids) - 1 + 4
        assert model.coder.decode(answers.tolist()) != ""


# -- stages


def test_only_the_projector_learns_in_the_first_stage(store, tmp_path):
    model = toy()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    set_trainable(model, "projector")
    batch = stage_loader(store, model, small_stage(), workers=0).load(0)
    VLMStep()(model, batch)["loss"].backward()
    graded = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert graded == {n for n, _ in model.named_parameters() if n.startswith("projector.")}
    model.zero_grad()
    stage = small_stage(trainable="projector", template="plain", name="s1")
    train_stage(store, model, stage, tmp_path / "s1", base=BASE, workers=0)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.startswith("projector.")}


def test_stages_follow_each_other_at_their_resolutions(store, tmp_path):
    stages = (
        small_stage(name="s1", trainable="projector", resolution=64),
        small_stage(name="s2", resolution=128),
    )
    model = toy(64)
    runs = train_vlm(store, model, stages, tmp_path, base=BASE, workers=0)
    assert [r.steps for r in runs] == [2, 2]
    assert model.preprocess.size == 128
    assert not model.training
    assert model.config.tokens_per_view == 4
    # done stages are not run again, and their weights are there
    other = toy(64)
    again = train_vlm(store, other, stages, tmp_path, base=BASE, workers=0)
    assert [r.metrics for r in again] == [r.metrics for r in runs]
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert other.image.tower.training is False


def test_the_published_stages():
    first, second = two_stage(256, 1024)
    assert (first.trainable, first.lr, first.batch_size, first.resolution) == (
        "projector", 1e-3, 256, 256
    )  # fmt: skip
    assert (second.trainable, second.lr, second.batch_size, second.resolution) == (
        "all", 2e-5, 128, 1024
    )  # fmt: skip
    names = [s.name for s in scaled(224, 768)]
    assert names == ["s1", "s1.5", "s2", "s3"]
    assert {s.resolution for s in scaled(224, 768)[1:]} == {768}
    config = first.train_config(558_000)
    assert config.steps == 558_000 // 256
    assert config.schedule == "cosine"
    assert config.warmup_steps == round(0.03 * config.steps)


def test_a_model_learns_what_it_is_told(tmp_path):
    """One picture white, one black; the answer says which."""
    rows = {"id": [], "image": [], "conversations": []}
    for i, (level, word) in enumerate(((255, "1"), (0, "0"))):
        buffer = io.BytesIO()
        Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(buffer, "PNG")
        chat = [{"from": "human", "value": "<image> which?"}, {"from": "gpt", "value": word}]
        rows["id"].append(str(i))
        rows["image"].append(buffer.getvalue())
        rows["conversations"].append(json.dumps(chat))
    store = Store.create(tmp_path / "s", [pa.table(rows).to_batches()[0]])
    # no batch statistics: two samples a batch would make poor ones
    tower = VitConfig(image_size=64, width=16, depth=1, num_heads=2, stem="patch")
    model = toy(64, image=tower)
    stage = small_stage(steps=60, lr=3e-3, warmup=0.1)
    run = train_stage(store, model, stage, tmp_path / "run", base=BASE, workers=0)
    model.eval()
    assert run.metrics["train/loss"] < 0.2
    answers = answer_rows(model, store, [0, 1])
    assert [a["answer"] for a in answers] == ["1", "0"]
    assert scores(answers) == {"accuracy": 1.0}


# -- questions


def test_questions_are_asked_one_by_one(store):
    model = toy()
    found = answer_rows(model, store, store.where("split = 'test'"), max_tokens=3)
    row = store.take([6], ["conversations", "kinds", "small"]).to_pylist()[0]
    questions = [t["value"].replace("<image>\n", "") for t in json.loads(row["conversations"])[::2]]
    mine = [a for a in found if a["row"] == 6]
    assert [a["question"] for a in mine] == questions
    assert [a["kind"] for a in mine] == row["kinds"]
    options = GenerateConfig(method="greedy", max_tokens=3)
    from understudy.data.decode import decode

    picture = decode(store.take([6], ["image"]).to_pylist()[0]["image"])
    alone = [model.generate(picture, q, options) for q in questions]
    assert ask(model, picture, questions, 3) == alone
    assert [a["answer"] for a in mine] == alone
    assert {"accuracy", "accuracy_corner", "accuracy_count"} <= scores(found).keys()


# -- bad input


def _store(tmp_path, **columns):
    values = {"id": ["a"], "image": [b""], "conversations": ["[]"], **columns}
    return Store.create(tmp_path / "s", [pa.table(values).to_batches()[0]])


def chat(question="which?", answer="1"):
    return json.dumps([{"from": "human", "value": question}, {"from": "gpt", "value": answer}])


def test_a_conversation_without_an_image_is_text(tmp_path):
    store = _store(tmp_path, conversations=[chat()])
    stage = small_stage(batch_size=1)
    batch = stage_loader(store, toy(), stage, workers=0).load(0)
    assert batch["pixels"].shape[0] == 0
    assert batch["views"] == []
    assert VLMStep()(toy(), batch)["loss"] > 0


def test_texts_are_cut_and_counted_but_never_images(tmp_path):
    store = _store(tmp_path, conversations=[chat("how many 1 " * 10, "2 3 " * 60)])
    loader = stage_loader(store, toy(), small_stage(batch_size=1), workers=0)
    assert len(loader.load(0)["ids"][0]) == 96
    assert loader.stats.truncated == {"ids": 1}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"conversations": ["{"]}, "row 0: the conversation is not JSON"),
        ({"conversations": [chat("<image>")]}, "row 0: the text has 1 <image> marks for 0 images"),
        ({"conversations": [chat("<image>")], "image": [b"\x00junk"]}, "image of row 0: not an"),
        ({"conversations": [chat("how " * 120)]}, "a batch has no token to learn"),
    ],
)
def test_bad_input_rows(tmp_path, columns, message):
    store = _store(tmp_path, **columns)
    loader = stage_loader(store, toy(), small_stage(batch_size=1), workers=0)
    with pytest.raises(DataError, match=message):
        VLMStep().check(loader.load(0))


def test_bad_input_training(store, tmp_path):
    with pytest.raises(ConfigError, match="nearest legal sizes are 64 and 128"):
        train_stage(store, toy(), small_stage(resolution=100), tmp_path / "x", workers=0)
    with pytest.raises(ConfigError, match="16 visual tokens.*more than the context of 16: images"):
        stage_loader(store, toy(256, context=16), small_stage(), workers=0).load(0)
    with pytest.raises(ConfigError, match="each of another name"):
        train_vlm(store, toy(), [small_stage(), small_stage()], tmp_path)
    with pytest.raises(DataError, match="stage 'all': no store; there are s1"):
        train_vlm({"s1": store}, toy(), [small_stage()], tmp_path)
    with pytest.raises(ConfigError, match="trainable"):
        small_stage(trainable="tower")
    digits = scenes.to_store("digits", tmp_path / "digits")
    with pytest.raises(DataError, match="no column 'conversations'; import conversations with"):
        stage_loader(digits, toy(), small_stage(), workers=0)
