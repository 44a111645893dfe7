"""Language models under torch.compile: the same losses, one graph a length."""

import lm_toy
import torch

from understudy.train.lm import LMStep


def test_a_compiled_model_is_compiled_once_a_length():
    import torch._dynamo as dynamo

    dynamo.reset()
    dynamo.utils.counters.clear()
    model = lm_toy.model()
    compiled = torch.compile(model, backend="eager")
    draw = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(3):
        for size in (8, 16):
            ids = torch.randint(0, 32, (2, size), generator=draw)
            batch = {"ids": ids, "targets": ids.roll(-1, 1)}
            losses, grads = [], []
            for step, call in (
                (LMStep(z_loss=0.1, static=True), compiled),
                (LMStep(z_loss=0.1), model),
            ):
                found = step(call, batch)
                losses.append(found["loss"].detach())
                grads.append(torch.autograd.grad(found["loss"], list(model.parameters())))
            assert torch.allclose(*losses)
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))
        seen.append(dynamo.utils.counters["stats"]["unique_graphs"])
    assert seen == [seen[0]] * 3
    dynamo.reset()
