from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from kshot import memory_estimate
from kshot.batching import map_leaves
from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import MAML
from kshot.losses import cross_entropy
from kshot.memory import peak_bytes
from kshot.memory_estimate import Plan, estimate, fitting_plan
from kshot.meta_gradient import MetaGradient
from kshot.nets.norm import group_norm


def tasks(shape: tuple[int, ...], t: int = 4) -> Episode:
    y = one_hot(torch.arange(6) % 3, 3).expand(t, -1, -1)
    return Episode(*(Batch(torch.randn(t, 6, *shape), y) for _ in range(2)))


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), group_norm(8), nn.Tanh(), nn.AvgPool2d(26), nn.Flatten(), nn.Linear(8, 3))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(96, 3))


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(90, 90), nn.Tanh(), nn.Linear(90, 90), nn.Linear(90, 3))
    net[2].weight = net[0].weight
    return net


class Looking(nn.Module):
    """Looks at values, which the meta device has not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(90, 90), nn.Linear(90, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        return self.last(hidden if x.detach().abs().max().item() > 0 else -hidden)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (conv, (1, 28, 28)),
    "transformer": (transformer, (6, 16)),
    "tied": (tied, (90,)),
    "looking at values": (Looking, (90,)),
}
PLANS = [Plan("reverse"), Plan(), Plan(checkpoint_every=2), Plan(chunk_size=1), Plan("first_order", chunk_size=2)]


def allocated_peak(model: nn.Module, batch: Episode, steps: int, plan: Plan) -> int:
    """Return what the allocator of the CPU says, which knows nothing of how we count."""
    learner = MAML(model, 0.1, steps, plan.differentiate, checkpoint_every=plan.checkpoint_every)
    gradient = MetaGradient(learner, plan.chunk_size)
    gradient(batch)  # what stays for good is there before the count begins
    learner.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        gradient(batch)
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    present = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        present += event.nbytes()
        peak = max(peak, present)
    return peak


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_an_estimate_is_within_ten_percent_of_what_is_allocated(name: str, plan: Plan) -> None:
    make, shape = MODELS[name]
    model, batch = make(), tasks(shape)
    assert estimate(model, cross_entropy, batch, 3, plan) == pytest.approx(
        allocated_peak(model, batch, 3, plan), rel=0.1
    )


def test_an_estimate_changes_nothing_and_needs_no_memory() -> None:
    model, batch = conv(), tasks((1, 28, 28))
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    many = map_leaves(lambda leaf: leaf[:1].expand(100_000, *leaf.shape[1:]), batch)
    # The same little for a hundred thousand tasks: expanded, they take no memory, and the estimate none.
    assert estimate(model, cross_entropy, many, 2) > 10**9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_mixed_grows_with_the_steps_by_little() -> None:
    model, batch = conv(), tasks((1, 28, 28))
    sizes = {
        mode: [estimate(model, cross_entropy, batch, n, Plan(mode)) for n in (2, 8)] for mode in ("mixed", "reverse")
    }
    assert sizes["mixed"][1] < 2 * sizes["mixed"][0]
    assert sizes["reverse"][1] > 3 * sizes["reverse"][0]


@pytest.mark.parametrize(("checkpoint_every", "most"), [(None, 1.2), (4, 0.3)])
@pytest.mark.parametrize("name", ["convolution", "transformer"])
def test_each_further_step_of_mixed_adds_no_more_than_the_weights(
    name: str, checkpoint_every: int | None, most: float
) -> None:
    make, shape = MODELS[name]
    model, batch = make(), tasks(shape)
    weights = sum(parameter.nbytes for parameter in model.parameters()) * len(batch.query.y)

    def peak(steps: int) -> int:
        learner = MAML(model, 0.1, steps, "mixed", checkpoint_every=checkpoint_every)
        return peak_bytes(lambda: learner.meta_loss(batch).backward())

    assert peak(16) - peak(4) <= 12 * most * weights


def test_the_first_plan_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [Plan(mode, chunk_size=size) for size in (None, 2, 1) for mode in ("mixed", "reverse")]
    plans += [Plan(checkpoint_every=4, chunk_size=1), Plan("first_order", chunk_size=1)]
    monkeypatch.setattr(memory_estimate, "estimate", lambda *args: 100 - plans.index(args[-1]))
    for size, plan in zip(range(100, 92, -1), plans, strict=True):
        assert fitting_plan(conv(), cross_entropy, tasks((1, 28, 28)), 16, size) == plan
    assert fitting_plan(conv(), cross_entropy, tasks((1, 28, 28)), 16, 92) is None


def test_what_is_freed_is_not_counted() -> None:
    assert peak_bytes(lambda: [torch.zeros(1000).sum() for _ in range(9)]) == pytest.approx(4000, abs=100)
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(9)]) == 36_000
    assert peak_bytes(lambda: torch.zeros(1000).view(10, 100)[3]) == 4000
