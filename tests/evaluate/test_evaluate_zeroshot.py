"""Class weights are built in the published order; templates and class lists are checked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.evaluate import zeroshot as z
from understudy.evaluate.metrics import top_k_accuracy


def letters(texts):
    """A text encoder of lengths that differ: counts of letters."""
    return torch.tensor([[float(t.count(c)) for c in "abcdefgh "] for t in texts])


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=5, unique=True)
)
def test_weights_equal_a_loop(names):
    templates = ("a {}", "{} head", "bad {class} cab")
    found = z.class_weights(letters, names, templates)
    for name, row in zip(names, found, strict=True):
        total = torch.zeros(9)
        for text in (f"a {name}", f"{name} head", f"bad {name} cab"):
            vector = letters([text])[0]
            total += vector / vector.norm()
        mean = total / 3
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_prompts_are_normalised_before_the_mean():
    # a long prompt must not outweigh a short one
    vectors = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    found = z.average_prompts(vectors, [2])
    assert torch.allclose(found, torch.full((1, 2), 0.5**0.5))


def test_full_prompts_by_class():
    prompts = {"a": ["aaa", "a head"], "b": ["bbb"]}
    assert z.class_prompts(["b", "a"], prompts) == [["bbb"], ["aaa", "a head"]]
    found = z.class_weights(letters, ["b", "a"], prompts)
    assert found[0].argmax() == 1
    assert z.class_prompts(["a {b}"], "x {} y") == [["x a {b} y"]]


def test_ensemble_is_the_mean_of_cosines():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(6, d, generator=generator) for d in (4, 7)]
    weights = [torch.randn(3, d, generator=generator) for d in (4, 7)]
    joined = z.join_embeddings(images) @ z.join_embeddings(weights).T
    cosines = [z.unit(i) @ z.unit(w).T for i, w in zip(images, weights, strict=True)]
    assert torch.allclose(joined, sum(cosines) / 2, atol=1e-6)
    assert torch.allclose(z.join_embeddings([images[0]]), z.unit(images[0]))
    # members of any length count alike
    again = z.join_embeddings([100 * images[0], images[1]])
    assert torch.allclose(again, z.join_embeddings(images), atol=1e-6)


def test_logits_and_metrics():
    images, weights = torch.eye(4) * 5, torch.eye(4)
    assert torch.allclose(z.zeroshot_logits(images, weights, 10), 10 * torch.eye(4))
    labels = [0, 1, 2, 0]
    found = z.zeroshot_metrics(images, labels, weights)
    assert found["top1"] == 0.75
    assert found["top1"] == top_k_accuracy(images, labels)
    # the scale moves calibration, not accuracy
    soft = z.zeroshot_metrics(images, labels, weights, scale=1.0)
    assert (soft["top1"], soft["ece"] != found["ece"]) == (0.75, True)


def test_own_templates_are_good():
    assert len(set(z.TEMPLATES)) == len(z.TEMPLATES) >= 5
    assert all(z.check_template(t) for t in z.TEMPLATES)


def test_files(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("# photos\na photo of a {}.\n\n  a {class} in the snow  \n")
    assert z.read_templates(path) == ("a photo of a {}.", "a {class} in the snow")
    names = tmp_path / "classes.txt"
    names.write_text("cat\nspotted dog\n")
    assert z.read_classes(names) == ("cat", "spotted dog")
    listed = tmp_path / "classes.json"
    listed.write_text('["cat", "dog"]')
    assert z.read_classes(listed) == ("cat", "dog")


def test_bad_input_class_lists(tmp_path):
    with pytest.raises(DataError, match="'cat' is class 0 and class 2; two classes of one name"):
        z.class_weights(letters, ["cat", "dog", "cat"])
    with pytest.raises(DataError, match="no class; zero-shot"):
        z.class_weights(letters, [])
    with pytest.raises(DataError, match="class 1 has an empty name"):
        z.check_classes(["cat", " "])
    names = tmp_path / "classes.txt"
    names.write_text("cat\n\ndog\n")
    with pytest.raises(DataError, match="class 1 has an empty name"):
        z.read_classes(names)
    names.write_text("")
    with pytest.raises(DataError, match=r"classes.txt: no class"):
        z.read_classes(names)
    with pytest.raises(DataError, match="none.txt: no such file"):
        z.read_classes(tmp_path / "none.txt")
    bad = tmp_path / "classes.json"
    bad.write_text('{"cat": 0}')
    with pytest.raises(DataError, match="expected a JSON list"):
        z.read_classes(bad)


def test_bad_input_templates(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {}.\na photo\n")
    with pytest.raises(DataError, match=r"line 2: 'a photo' has 0 placeholders; expected one"):
        z.read_templates(path)
    path.write_text("{} and {}\n")
    with pytest.raises(DataError, match="has 2 placeholders"):
        z.read_templates(path)
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match="no template"):
        z.read_templates(path)
    with pytest.raises(DataError, match="give at least one template"):
        z.class_prompts(["a"], [])
    with pytest.raises(DataError, match="prompts: none for class 'b'"):
        z.class_prompts(["a", "b"], {"a": ["x"]})


def test_bad_input_vectors():
    with pytest.raises(DataError, match="vector 1 is zero or not finite"):
        z.unit(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(DataError, match="class weights: vector 0 is zero"):
        z.average_prompts(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [2])
    with pytest.raises(DataError, match="4 dimensions, class weights 3; they are of different"):
        z.zeroshot_logits(torch.ones(2, 4), torch.ones(2, 3))
    with pytest.raises(DataError, match=r"the models have \[2, 3\] rows"):
        z.join_embeddings([torch.ones(2, 4), torch.ones(3, 4)])
    with pytest.raises(DataError, match="at least one model"):
        z.join_embeddings([])
