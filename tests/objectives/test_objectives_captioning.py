"""The captioning loss against an independent computation, and its sum with the CLIP loss."""

import pytest
import torch

from understudy.core.errors import ConfigError, DataError
from understudy.objectives import OBJECTIVES
from understudy.objectives.captioning import captioning_loss, coca, predicted
from understudy.objectives.contrastive import clip_loss

END = 9
TEXTS = torch.tensor([[8, 3, 0, 4, END, 0, 0], [8, END, 0, 0, 0, 0, 0], [8, 1, 2, 3, 4, 5, END]])


def _outputs(seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize
    return {
        "image_features": unit(torch.randn(3, 4, generator=draw), dim=-1),
        "text_features": unit(torch.randn(3, 4, generator=draw), dim=-1),
        "logit_scale": torch.tensor(10.0),
        "caption_logits": torch.randn(3, 6, 10, generator=draw, requires_grad=True),
    }


def test_words_up_to_the_end_count_and_padding_does_not():
    kept = predicted(TEXTS)
    # id 0 is a word in the first row and padding after the end
    assert kept.sum(1).tolist() == [4, 1, 6]
    logits = _outputs()["caption_logits"]
    log_p = logits.log_softmax(-1)
    terms = []
    for row, text in zip(log_p, TEXTS.tolist(), strict=True):
        for place in range(1, text.index(END) + 1):
            terms.append(-row[place - 1, text[place]])
    expected = torch.stack(terms).mean()
    assert torch.allclose(captioning_loss(logits, TEXTS), expected)
    captioning_loss(logits, TEXTS).backward()
    assert (logits.grad[0, 4:] == 0).all()
    assert (logits.grad[0, :4] != 0).any(-1).all()


def test_the_sum_of_both_losses():
    outputs, batch = _outputs(), {"texts": TEXTS}
    pair = clip_loss(outputs["image_features"], outputs["text_features"], outputs["logit_scale"])
    words = captioning_loss(outputs["caption_logits"], TEXTS)
    found = OBJECTIVES.load("coca")(outputs, batch)
    assert torch.allclose(found["loss"], pair + 2 * words)
    assert torch.allclose(found["contrastive"], pair)
    assert torch.allclose(found["captioning"], words)
    alone = coca(outputs, batch, contrastive=0.0, captioning=1.0)
    assert torch.allclose(alone["loss"], words)
    assert "contrastive" not in alone


def test_bad_input_coca():
    with pytest.raises(ConfigError, match="weights of at least 0, not both 0"):
        coca(_outputs(), {"texts": TEXTS}, contrastive=0.0, captioning=0.0)
    with pytest.raises(DataError, match="coca: the batch has no 'caption_logits'"):
        coca({k: v for k, v in _outputs().items() if k != "caption_logits"}, {"texts": TEXTS})
