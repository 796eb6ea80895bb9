"""Multi-task baselines against one model per task and plain autograd; aggregated gradients against TorchJD's own."""

import copy
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchjd.aggregation import MGDA, Aggregator, Mean, UPGrad

from kshot.batching import map_leaves, unstack
from kshot.core import Batch, Episode, Learner, Tasks
from kshot.evaluation import evaluate
from kshot.learners.gradient import MAML
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import AggregatedGradient, LinearProbe, MultiTask
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.nets.multi_task import TaskConditioned, TaskHeads
from kshot.tasks.episodes import Episodes
from kshot.tasks.keys import normal
from kshot.tasks.labelled import LabelledData
from kshot.tasks.numbered import NumberedTasks
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource
from kshot.training import train


def waves() -> NumberedTasks:
    return NumberedTasks(Sinusoids(shots=5, queries=4), 3, length=100)


def test_a_trunk_with_heads_is_a_linear_layer_for_each_task() -> None:
    net = TaskHeads(MLP(2, 5), 5, 3, tasks=4)
    x, task = torch.randn(6, 2), torch.tensor([3, 0, 0, 1, 3, 2])
    for i in range(6):
        expected = net.weight[task[i]] @ net.trunk(x[i : i + 1])[0] + net.bias[task[i]]
        assert torch.allclose(net((x, task))[i], expected, atol=1e-6)


def test_a_head_learns_from_its_own_task_alone() -> None:
    learner = MultiTask(TaskHeads(MLP(1, 5), 5, 1, tasks=3), mean_squared_error)
    learner.meta_loss(waves().sample(np.array([0, 2]))).backward()
    gradient = learner.net.weight.grad
    assert gradient[[0, 2]].abs().sum(2).min() > 0
    assert (gradient[1] == 0).all()


def test_a_net_that_is_told_the_task_has_its_numbers_beside_the_input() -> None:
    net = TaskConditioned(nn.Linear(1 + 2, 1), tasks=3, size=2)
    x = torch.randn(3, 1)
    expected = net.net(torch.cat([x, net.codes.weight], 1))
    assert torch.equal(net((x, torch.arange(3))), expected)


def test_queries_are_not_learned_from() -> None:
    tasks = waves().sample(np.arange(3))
    learner = MultiTask(TaskHeads(MLP(1, 5), 5, 1, tasks=3), mean_squared_error)
    changed = tasks._replace(query=tasks.query._replace(y=tasks.query.y + 100))
    assert torch.equal(learner.meta_loss(tasks), learner.meta_loss(changed))
    assert not torch.equal(learner.predictions(tasks), tasks.query.y)


def test_one_model_for_all_is_least_squares_over_the_points_of_all_tasks() -> None:
    tasks = waves().sample(np.arange(3))
    x = tasks.support.x[0].flatten().double()[:, None]
    y = tasks.support.y.flatten().double()[:, None]
    known = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), y).solution.flatten()
    learner = MultiTask(WithoutNumber(), mean_squared_error).double()
    with torch.no_grad():
        learner.net.line.weight.fill_(known[0])
        learner.net.line.bias.fill_(known[1])
    learner.meta_loss(doubled(tasks)).backward()
    assert max(parameter.grad.abs().max() for parameter in learner.parameters()) < 1e-6


class WithoutNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return self.line(inputs[0])


def doubled(tasks: Episode) -> Episode:
    return map_leaves(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tasks)


class Plane(TaskSource):
    """Linear functions of 20 inputs whose slopes lie in the plane of the first two."""

    @property
    def stamp(self) -> dict[str, str]:
        return {"data": "plane"}

    def sample(self, items: np.ndarray) -> Episode:
        def drawn(stream: int, *shape: int) -> Tensor:
            numbers = normal(self.seed, stream, items, int(np.prod(shape)))
            return torch.from_numpy(numbers).float().reshape(-1, *shape)

        slope, x = drawn(0, 2, 1), [drawn(1, 10, 20), drawn(2, 15, 20)]
        return Episode(*(Batch(one, one[..., :2] @ slope) for one in x))


def test_a_trunk_learned_from_many_tasks_helps_on_new_ones() -> None:
    learner = MultiTask(TaskHeads(nn.Linear(20, 2), 2, 1, tasks=60), mean_squared_error)
    optimizer = torch.optim.Adam(learner.parameters(), 0.02)
    train(learner, NumberedTasks(Plane(seed=0, length=60), 60), steps=300, tasks_per_step=60, optimizer=optimizer)
    error = {
        name: evaluate(LinearProbe(encoder, mean_squared_error, penalty=0.01), Plane(seed=1, length=200))
        for name, encoder in {"learned": learner.net.trunk, "none": nn.Identity()}.items()
    }
    assert error["learned"].mean + error["learned"].ci95 < 0.2 * error["none"].mean


def jacobian(learner: Learner, tasks: Tasks) -> Tensor:
    """Return the gradient of each task's loss by plain autograd, one task after the other."""
    rows = []
    for loss in learner.task_losses(tasks if isinstance(tasks, list) else unstack(tasks)):
        gradients = torch.autograd.grad(loss, list(learner.parameters()), retain_graph=True, allow_unused=True)
        parameters = zip(gradients, learner.parameters(), strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in parameters]))
    return torch.stack(rows)


def episodes() -> Tasks:
    x = torch.randn(36, 6, dtype=torch.float64)
    return Episodes(LabelledData(x, torch.arange(36) % 4, tuple("abcd")), 3, 2, 2).sample(np.arange(4))


LEARNERS = {
    "multi-task": lambda: MultiTask(MLP(6, 8, 3)),
    "prototypical": lambda: Prototypical(MLP(6, 8, 4)),
    "maml": lambda: MAML(MLP(6, 8, 3), 0.3, 2),
}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("aggregator", [Mean(), MGDA()], ids=str)
def test_gradients_of_tasks_are_aggregated(name: str, aggregator: Aggregator) -> None:
    tasks, learner = episodes(), LEARNERS[name]().double()
    loss = AggregatedGradient(learner, aggregator)(tasks)
    found = torch.cat([parameter.grad.flatten() for parameter in learner.parameters()])
    expected = aggregator(jacobian(learner, tasks))
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert torch.allclose(loss, learner.meta_loss(tasks))
    together = copy.deepcopy(learner)
    together.zero_grad()
    AggregatedGradient(together, aggregator, chunk_size=2)(tasks)
    again = torch.cat([parameter.grad.flatten() for parameter in together.parameters()])
    assert torch.allclose(again, found, rtol=1e-6, atol=1e-9)


def test_gradients_add_up_over_calls_as_those_of_backward_do_and_tasks_may_differ_in_size() -> None:
    tasks, learner = episodes(), MultiTask(MLP(6, 8, 3)).double()
    ragged = [*unstack(tasks)[:3], cut(unstack(tasks)[3])]
    expected = MGDA()(jacobian(learner, ragged))
    for times in (1, 2):
        AggregatedGradient(learner, MGDA())(ragged)
        found = torch.cat([parameter.grad.flatten() for parameter in learner.parameters()])
        assert torch.allclose(found, times * expected, rtol=1e-6, atol=1e-9)


def cut(task: Episode) -> Episode:
    return Episode(*(Batch(batch.x[:4], batch.y[:4]) for batch in task))


def test_a_step_along_the_aggregate_makes_no_task_worse_where_one_along_the_mean_does() -> None:
    # Two tasks that want the one weight on different sides, one of them ten times as strongly, and a weight apart.
    pytest.importorskip("quadprog")
    worse = {}
    for name, aggregator in {"mean": Mean(), "UPGrad": UPGrad()}.items():
        learner = MultiTask(nn.Linear(2, 1, bias=False), mean_squared_error).double()
        nn.init.zeros_(learner.net.weight)
        x = torch.tensor([[[1.0, 0.5]], [[10.0, 0.0]]], dtype=torch.float64)
        y = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
        tasks = _tasks(x, y)
        before = learner.task_losses(tasks)
        AggregatedGradient(learner, aggregator)(tasks)
        with torch.no_grad():
            learner.net.weight -= 1e-4 * learner.net.weight.grad
        worse[name] = (learner.task_losses(tasks) - before).max().item()
    assert worse["mean"] > 0
    assert worse["UPGrad"] < 0


def _tasks(x: Tensor, y: Tensor) -> Tasks:
    return Episode(Batch(x, y), Batch(x, y))


def test_training_takes_the_gradient_that_it_is_given() -> None:
    ways: list[dict[str, Tensor]] = []
    for given in (False, True):
        torch.manual_seed(0)
        learner = MultiTask(TaskHeads(MLP(1, 5), 5, 1, tasks=3), mean_squared_error)
        gradient = AggregatedGradient(learner, Mean()) if given else None
        train(learner, waves(), steps=4, tasks_per_step=3, gradient=gradient)
        ways.append(learner.state_dict())
    assert all(torch.allclose(ways[0][name], ways[1][name], atol=1e-6) for name in ways[0])


def test_what_cannot_be_aggregated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = MultiTask(nn.Linear(6, 3).double().requires_grad_(False))
    with pytest.raises(ValueError, match="nothing to aggregate"):
        AggregatedGradient(frozen, Mean())(episodes())
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ImportError, match=r"pip install 'kshot\[multitask\]'"):
        AggregatedGradient(frozen, Mean())


def test_a_net_that_would_see_the_queries_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm1d\) would learn its statistics from queries"):
        MultiTask(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)))
