"""The one-dimensional net takes signals of any length, shifts change little, and it stands inside vmap."""

import pytest
import torch
from torch import nn

from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import MAML
from kshot.learners.metric import Prototypical
from kshot.nets.conv1d import Conv1d


@pytest.mark.parametrize("length", [1, 2, 5, 131, 512])
def test_any_length_gives_as_many_features(length: int) -> None:
    net = Conv1d(2, (4, 8)).eval()
    assert net(torch.rand(3, 2, length)).shape == (3, 8)


def test_each_signal_alone_in_eval_mode() -> None:
    net, x = Conv1d(1, (4, 8)), torch.randn(6, 1, 40)
    net(x)  # so that the running statistics are not those of the start
    net.eval()
    torch.testing.assert_close(net(x), torch.cat([net(one[None]) for one in x]))


def test_constant_signals_embed_alike_whatever_their_length() -> None:
    # Away from the ends every position sees the same, so the mean over time tends to one embedding.
    net = Conv1d(1, (4, 8)).eval()
    long, longer = (net(torch.ones(1, 1, length)) for length in (2000, 8000))
    torch.testing.assert_close(long, longer, rtol=0.02, atol=1e-3)
    assert not torch.allclose(long, net(-torch.ones(1, 1, 2000)), rtol=0.02, atol=1e-3)


def test_vmap_over_weights_equals_the_loop() -> None:
    nets = [Conv1d(1, (4, 8), nn.Identity).double() for _ in range(3)]
    weights = torch.func.stack_module_state(nets)[0]
    x = torch.randn(3, 5, 1, 21, dtype=torch.float64)
    mapped = torch.func.vmap(lambda w, x: torch.func.functional_call(nets[0], w, (x,)))(weights, x)
    torch.testing.assert_close(mapped, torch.stack([net(one) for net, one in zip(nets, x, strict=True)]))


def test_it_adapts_and_its_meta_gradient_is_finite() -> None:
    model = nn.Sequential(Conv1d(1, (4, 8), lambda width: nn.GroupNorm(2, width)), nn.Linear(8, 2))
    x, y = torch.randn(2, 4, 1, 33), one_hot([0, 1, 0, 1], 2).expand(2, -1, -1)
    for learner in (MAML(model, 0.1), Prototypical(model[0])):
        learner.zero_grad()
        learner.meta_loss(Episode(Batch(x, y), Batch(x.flip(1), y.flip(1)))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters() if p.requires_grad)
