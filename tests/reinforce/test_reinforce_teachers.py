"""Teachers of this package, functions, ensembles, aligned pairs: what all kinds share."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reinforce_world import (
    TEXTS,
    colour_classes,
    colour_embedding,
    function_teacher,
    nano_classifier,
    nano_clip,
    picture,
    say,
    text_embedding,
)

from understudy import models
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.decode import decode
from understudy.models.multimodal.aligner import Aligner, AlignerConfig, Modality, save_aligner
from understudy.models.preprocess import Preprocess, to_tensor
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers import TEACHERS, create, create_all
from understudy.reinforce.teachers.aligned import AlignedTeacher
from understudy.reinforce.teachers.base import Teacher, probability_rows, unit_rows
from understudy.reinforce.teachers.ensemble import Ensemble
from understudy.reinforce.teachers.function import FunctionTeacher
from understudy.reinforce.teachers.own import OwnTeacher
from understudy.reinforce.teachers.prepare import to_input

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)


def test_own_clip_gives_the_models_embeddings(tmp_path):
    model = nano_clip()
    path = models.save(model, tmp_path / "a.safetensors")
    teacher = create(TeacherSpec(name="a", path=str(path), options={"fold": False}))
    assert teacher.capabilities == {"embed_images", "embed_texts"}
    assert (teacher.image_dim, teacher.text_dim) == (16, 16)
    with torch.no_grad():
        images = model.encode_image(model.preprocess_images(IMAGES)).numpy()
        texts = model.encode_text(model.tokenize(TEXTS[:3])).numpy()
    assert np.abs(teacher.embed_images(IMAGES) - images).max() < 1e-6
    assert np.abs(teacher.embed_texts(TEXTS[:3]) - texts).max() < 1e-6
    assert np.linalg.norm(teacher.embed_images(IMAGES), axis=1) == pytest.approx(1, abs=1e-6)
    assert teacher.logit_scale == pytest.approx(float(model.scale().detach()))
    folded = create(TeacherSpec(name="a", path=str(path), logit_scale=70.0))
    assert folded.logit_scale == 70.0
    assert np.abs(folded.embed_images(IMAGES) - images).max() < 1e-5


def test_a_list_of_images_of_any_size_is_taken():
    teacher = OwnTeacher("a", nano_clip())
    images = [decode(picture(i)) for i in range(3)]
    whole = teacher.embed_images(images)
    assert np.abs(whole[1] - teacher.embed_images([images[1]])[0]).max() < 1e-6
    assert teacher.embed_images([]).shape[0] == 0


def test_own_classifier_classifies_and_embeds():
    model = nano_classifier()
    teacher = OwnTeacher("c", model)
    assert teacher.capabilities == {"embed_images", "classify"}
    with torch.no_grad():
        logits = model(to_tensor(IMAGES, model.preprocess))["logits"]
    assert np.abs(teacher.classify(IMAGES) - logits.softmax(-1).numpy()).max() < 1e-6
    assert teacher.num_classes == 12
    assert teacher.embed_images(IMAGES).shape == (3, 10)
    assert teacher.logit_scale is None


def test_fingerprint_is_of_weights_preprocessing_and_settings():
    one, same = OwnTeacher("a", nano_clip()), OwnTeacher("b", nano_clip(), logit_scale=3.0)
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != OwnTeacher("a", nano_clip(1)).fingerprint
    assert one.fingerprint != OwnTeacher("a", nano_clip(), fold=False).fingerprint
    assert one.fingerprint != OwnTeacher("a", nano_clip(), compute="bfloat16").fingerprint
    other = nano_clip(**{"preprocess.interpolation": "bicubic"})
    assert one.fingerprint != OwnTeacher("a", other).fingerprint


def test_reduced_precision_stays_near():
    exact, rough = OwnTeacher("a", nano_clip()), OwnTeacher("a", nano_clip(), compute="bfloat16")
    difference = np.abs(exact.embed_images(IMAGES) - rough.embed_images(IMAGES)).max()
    assert 0 < difference < 2e-2


def test_teachers_are_frozen():
    model = nano_clip()
    teacher = OwnTeacher("a", model, fold=False)
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert teacher.eval() is teacher
    assert teacher.train(False) is teacher
    with pytest.raises(ConfigError, match="teacher 'a' is frozen and cannot be switched"):
        teacher.train()
    model.image.train()
    with pytest.raises(ConfigError, match="teacher 'a' is in training mode"):
        teacher.embed_images(IMAGES)


def test_absent_capability_names_the_teacher():
    teacher = OwnTeacher("a", nano_clip())
    for ask in (lambda: teacher.classify(IMAGES), lambda: teacher.caption(IMAGES, 2)):
        with pytest.raises(ConfigError, match=r"teacher 'a' \(kind understudy\) cannot"):
            ask()


def test_views_are_not_changed_by_a_teachers_normalisation():
    levels = IMAGES.astype(np.float32)
    before = levels.copy()
    pixels = Preprocess(size=48, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    device = torch.device("cpu")
    floats = to_input(levels, pixels, device)
    assert (levels == before).all()
    assert torch.equal(floats, to_input(IMAGES, pixels, device))
    # planar memory, as views come, and C order give the same bytes to the network
    planar = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert torch.equal(to_input(planar, pixels, device), floats)
    assert to_input(planar, pixels, device).is_contiguous()
    small = Preprocess(size=24, interpolation="bicubic")
    assert (to_input(levels, small, device) - to_input(IMAGES, small, device)).abs().max() < 0.02


def test_function_teacher_and_module_function_strings():
    spec = TeacherSpec(
        name="f",
        kind="callable",
        options={
            "embed_images": "reinforce_functions:colour_embedding",
            "embed_texts": "reinforce_functions:text_embedding",
            "classify": "reinforce_functions:colour_classes",
            "caption": "reinforce_functions:say",
        },
    )
    made = create(spec)
    functions = {
        "embed_images": colour_embedding,
        "embed_texts": text_embedding,
        "classify": colour_classes,
        "caption": say,
    }
    given = FunctionTeacher("g", functions)
    assert made.fingerprint == given.fingerprint
    assert FunctionTeacher("g", functions, version="2").fingerprint != given.fingerprint
    assert (made.embed_images(IMAGES) == given.embed_images(IMAGES)).all()
    assert made.classify(IMAGES).sum(1) == pytest.approx(1)
    assert made.caption(IMAGES, 2, seed=5) == given.caption(IMAGES, 2, seed=5)
    assert made.caption(IMAGES, 2, [1, 2, 3])[1] == made.caption(IMAGES[:1], 2, [2])[0]
    sized = FunctionTeacher("g", {"embed_images": lambda x: [i.mean((0, 1)) for i in x]}, size=24)
    assert sized.embed_images(IMAGES.astype(np.float32)).shape == (3, 3)


def test_ensemble_averages_probabilities_and_concatenates_embeddings():
    a, b = OwnTeacher("a", nano_classifier(seed=0)), OwnTeacher("b", nano_classifier(seed=1))
    both = Ensemble("e", [a, b])
    mean = (a.classify(IMAGES) + b.classify(IMAGES)) / 2
    assert np.abs(both.classify(IMAGES) - mean).max() < 1e-6
    twice = Ensemble("e", [a, a]).classify(IMAGES)
    assert np.abs(twice - a.classify(IMAGES)).max() < 1e-7
    features = both.image_features(IMAGES)
    assert np.linalg.norm(features[:, :10], axis=1) == pytest.approx(1, abs=1e-6)
    assert both.embed_images(IMAGES) == pytest.approx(features / np.sqrt(2), abs=1e-6)
    assert both.fingerprint != Ensemble("e", [b, a]).fingerprint
    clips = Ensemble("e", [OwnTeacher("a", nano_clip()), OwnTeacher("b", nano_clip(1))])
    assert clips.embed_texts(TEXTS).shape == (12, 32)


def test_aligned_pair_is_a_teacher(tmp_path):
    image = function_teacher("image")
    config = AlignerConfig(
        dim=8,
        modalities=(
            Modality(name="image", encoder="i", in_dim=27, encoder_hash=image.fingerprint),
            Modality(name="text", encoder="t", in_dim=27),
        ),
    )
    aligner = Aligner(config, seed=0).eval()
    path = save_aligner(aligner, tmp_path / "al.safetensors")
    functions = {"embed_images": "colour_embedding", "embed_texts": "text_embedding"}
    named = {k: f"reinforce_functions:{v}" for k, v in functions.items()}
    side = {"kind": "callable", "options": named}
    spec = TeacherSpec(
        name="al", kind="aligned", path=str(path), options={"image": side, "text": side}
    )
    teacher = create(spec)
    assert teacher.capabilities == {"embed_images", "embed_texts"}
    with torch.no_grad():
        expected = aligner.encode("image", torch.from_numpy(image.image_features(IMAGES)))
        words = aligner.encode("text", torch.from_numpy(image.text_features(TEXTS)))
    assert np.abs(teacher.embed_images(IMAGES) - expected.numpy()).max() < 1e-6
    assert np.abs(teacher.embed_texts(TEXTS) - words.numpy()).max() < 1e-6
    assert teacher.logit_scale == pytest.approx(float(aligner.scale().detach()))
    units = AlignedTeacher("al", image, image, aligner, inputs="embeddings")
    assert units.fingerprint != teacher.fingerprint
    assert np.abs(units.embed_images(IMAGES) - expected.numpy()).max() > 1e-4
    other = FunctionTeacher("x", {"embed_images": colour_embedding}, version="2")
    with pytest.raises(CardError, match="its aligner was made for checkpoint"):
        AlignedTeacher("al", other, image, aligner)


def test_table_loads_every_kind_and_names_near_matches():
    assert set(TEACHERS) == {
        "understudy",
        "openclip",
        "timm",
        "transformers",
        "sentence",
        "onnx",
        "efficientnet-lite",
        "callable",
        "aligned",
    }
    for kind in TEACHERS:
        assert issubclass(TEACHERS.load(kind), Teacher)
        assert TEACHERS.load(kind).kind == kind
    with pytest.raises(ConfigError, match="there is no kind of teacher 'open-clip'"):
        create_all([TeacherSpec(name="a", kind="open-clip")])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_rows_become_unit_vectors_and_distributions(n, d, seed):
    values = np.random.default_rng(seed).uniform(0.01, 3, (n, d)).astype(np.float32)
    assert np.linalg.norm(unit_rows(values, "t"), axis=1) == pytest.approx(1, abs=1e-6)
    shares = values / values.sum(1, keepdims=True)
    assert probability_rows(shares, "t") == pytest.approx(shares, abs=1e-6)


def test_bad_input_teacher_output_names_the_sample():
    names = ["row 7 (id 'x')", "row 8 (id 'y')"]
    with pytest.raises(DataError, match=r"the embedding of row 8 \(id 'y'\) is a zero vector"):
        unit_rows(np.array([[1.0, 0.0], [0.0, 0.0]]), "t", names)
    with pytest.raises(DataError, match=r"the embedding of row 7 \(id 'x'\) is NaN"):
        unit_rows(np.array([[np.nan, 0.0], [0.0, 1.0]]), "t", names)
    with pytest.raises(DataError, match=r"probabilities of row 8 \(id 'y'\) sum to 0"):
        probability_rows(np.array([[0.5, 0.5], [0.0, 0.0]]), "t", names)
    with pytest.raises(DataError, match="hold NaN or infinity"):
        probability_rows(np.array([[np.nan, 0.5], [1.0, 0.0]]), "t", names)
    with pytest.raises(DataError, match=r"go down to -1 \(logits\? give probabilities\)"):
        probability_rows(np.array([[-1.0, 2.0], [1.0, 0.0]]), "t", names)


def test_bad_input_specifications():
    for changes, message in (
        ({"name": "a.b"}, "without dots"),
        ({"name": "a", "logit_scale": -1.0}, "expected a number above 0"),
        ({"name": "a", "outputs": ("video",)}, "'video' is not one of image, text, topk"),
    ):
        with pytest.raises(ConfigError, match=message):
            TeacherSpec(**changes)
    for spec, message in (
        (TeacherSpec(name="a"), "give 'path', a weights file"),
        (TeacherSpec(name="a", options={"folds": True}), "Did you mean 'fold'"),
        (TeacherSpec(name="a", kind="callable"), "give at least one function"),
        (
            TeacherSpec(name="a", kind="callable", options={"classify": "json:nothing"}),
            "'json:nothing' cannot be imported",
        ),
        (TeacherSpec(name="a", kind="callable", options={"classify": "json"}), "module:function"),
        (TeacherSpec(name="a", kind="aligned", options={"image": {}, "text": {}}), "give 'path'"),
        (TeacherSpec(name="a", kind="efficientnet-lite"), "give 'path', a released"),
        (TeacherSpec(name="a", kind="onnx"), "give 'path', an ONNX file"),
        (TeacherSpec(name="a", kind="sentence"), "give 'path', a local folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            create(spec)
    with pytest.raises(ConfigError, match="device: torch knows no 'toaster'"):
        OwnTeacher("a", nano_clip(), device="toaster")
    with pytest.raises(ConfigError, match="different numbers of classes"):
        Ensemble("e", [OwnTeacher("a", nano_classifier(3)), OwnTeacher("b", nano_classifier(4))])
