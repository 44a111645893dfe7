"""The splice: order, masks, labels, positions, padding; contexts that are too short."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.models.multimodal.splice import IGNORE, IMAGE, check_images, fit_context, splice

WIDTH = 3


def embed(ids):
    """Embed a token as its id, so that what stands where can be read off."""
    return ids.float()[:, None].expand(-1, WIDTH)


@st.composite
def batches(draw):
    """Rows of texts with 0 to 3 images each, of 1 to 4 tokens."""
    rows, features, counter = [], [], 1000.0
    for _ in range(draw(st.integers(1, 4))):
        row = []
        for i in range(draw(st.integers(0, 3)) + 1):
            if i:
                row.append(IMAGE)
                count = draw(st.integers(1, 4))
                features.append(torch.arange(count)[:, None].expand(-1, WIDTH) + counter)
                counter += 100
            row += draw(st.lists(st.integers(0, 50), max_size=4))
        if not row:
            row = [7]
        rows.append(row)
    return rows, features, draw(st.sampled_from(["left", "right"]))


@settings(max_examples=60, deadline=None)
@given(batches())
def test_the_splice_keeps_order_masks_and_labels(case):
    rows, features, padding = case
    labels = [[t + 1 if t % 2 else IGNORE for t in row] for row in rows]
    made = splice(
        [torch.tensor(r) for r in rows], features, embed, [torch.tensor(x) for x in labels],
        padding=padding,
    )  # fmt: skip
    # the same by lists, one token after the other
    pending = iter(features)
    longest = 0
    expected = []
    for row, mark in zip(rows, labels, strict=True):
        tokens, learned = [], []
        for token, label in zip(row, mark, strict=True):
            if token == IMAGE:
                image = next(pending)
                tokens += image[:, 0].tolist()
                learned += [IGNORE] * len(image)
            else:
                tokens.append(float(token))
                learned.append(label)
        expected.append((tokens, learned))
        longest = max(longest, len(tokens))
    assert made.embedded.shape == (len(rows), longest, WIDTH)
    for i, (tokens, learned) in enumerate(expected):
        pad = longest - len(tokens)
        where = slice(pad, None) if padding == "left" else slice(0, len(tokens))
        assert made.embedded[i, where, 0].tolist() == tokens
        assert made.labels[i, where].tolist() == learned
        assert made.valid[i, where].all()
        assert made.positions[i, where].tolist() == list(range(len(tokens)))
        assert int(made.valid[i].sum()) == int(made.lengths[i]) == len(tokens)
        assert int(made.last[i]) == (longest - 1 if padding == "left" else len(tokens) - 1)
        rest = ~made.valid[i]
        assert not made.embedded[i, rest].any()
        assert (made.labels[i, rest] == IGNORE).all()


def test_gradients_reach_images_and_words():
    table = torch.randn(9, WIDTH, requires_grad=True)
    image = torch.randn(2, WIDTH, requires_grad=True)
    made = splice([torch.tensor([1, IMAGE, 2]), torch.tensor([3])], [image], lambda i: table[i])
    made.embedded.sum().backward()
    assert image.grad.eq(1).all()
    assert table.grad[[1, 2, 3]].eq(1).all()
    assert not table.grad[[0, 4]].any()


def test_bad_input():
    with pytest.raises(DataError, match="has 1 <image> marks for 2 images"):
        splice([torch.tensor([IMAGE])], [torch.zeros(1, WIDTH)] * 2, embed)
    with pytest.raises(DataError, match="sample 3: the text has 2 <image> marks for 1 images"):
        check_images([IMAGE, 5, IMAGE], 1, "sample 3")
    with pytest.raises(DataError, match="row 0 has 1 labels for 2 tokens"):
        splice([torch.tensor([1, 2])], [], embed, [torch.tensor([1])])
    with pytest.raises(ConfigError, match="4 channels, the language model 3; the projector is of"):
        splice([torch.tensor([IMAGE])], [torch.zeros(1, 4)], embed)
    with pytest.raises(ConfigError, match="padding"):
        splice([torch.tensor([1])], [], embed, padding="middle")
    with pytest.raises(DataError, match="no prompts"):
        splice([], [], embed)


def test_a_long_text_is_cut_behind_its_last_image_only():
    ids = [1, IMAGE, 2, 3, 4, 5]
    kept = fit_context(ids, ids, [4], 9, "x")
    assert kept.ids == ids
    assert kept.cut == 0
    kept = fit_context(ids, [0, 0, 2, 3, 4, 5], [4], 7, "x")
    assert kept.ids == [1, IMAGE, 2, 3]
    assert kept.labels == [0, 0, 2, 3]
    assert kept.cut == 2


def test_bad_input_context():
    ids = [1, IMAGE, 2, 3]
    with pytest.raises(ConfigError, match="chat 7: 16 visual tokens, 3 text tokens are 9 more than "
                       "the context of 10: images, or text before them"):  # fmt: skip
        fit_context(ids, ids, [16], 10, "chat 7")
    with pytest.raises(ConfigError, match="and 5 to be generated are 2 more than the context of 10"
                       ".*the text after the last image would have to be cut"):  # fmt: skip
        fit_context([1, IMAGE, 2, 3, 4], [0] * 5, [3], 10, "p", reserve=5, cut=False)
