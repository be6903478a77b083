"""Our AdamW against torch's, which is not used for what it loads, not for what it computes."""

import torch

from sublet_trainer.models.adamw import AdamW


def test_it_moves_every_weight_to_the_same_bits_as_torch_does():
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draw) for shape in ((3, 5), (7,), (2, 2, 2))]
    ours, theirs = ([torch.nn.Parameter(one.clone()) for one in start] for _ in range(2))
    named = {str(place): one for place, one in enumerate(ours)}
    our_optimiser = AdamW(named, weight_decay=0.01)
    their_optimiser = torch.optim.AdamW(theirs, weight_decay=0.01, fused=True)
    for step in range(20):
        lr = 1e-2 / (1 + step)
        for own, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(own.shape, generator=draw) * 10.0 ** (step % 5 - 2)
            own.grad, other.grad = gradient.clone(), gradient.clone()
        our_optimiser.step(lr)
        their_optimiser.param_groups[0]["lr"] = lr
        their_optimiser.step()
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own, other)
    our_optimiser.zero_grad()
    assert [one.grad for one in ours] == [None] * 3
