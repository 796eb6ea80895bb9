import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from kshot.core import Batch, one_hot
from kshot.learners.gradient import MAML
from kshot.nets.norm import SupportStatisticsNorm
from kshot.weights import call, replaced


def test_a_call_uses_the_other_weights_and_leaves_the_module_as_it_was() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval()), torch.randn(5, 3)
    before = {name: id(tensor) for name, tensor in (*net.named_parameters(), *net.named_buffers())}
    others = {name: torch.rand_like(p) + 1 for name, p in net.named_parameters()} | {"1.running_mean": torch.ones(4)}
    torch.testing.assert_close(call(net, others, x), functional_call(net, others, (x,)))
    assert {name: id(tensor) for name, tensor in (*net.named_parameters(), *net.named_buffers())} == before


def test_a_submodule_registered_twice_keeps_its_parameters() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2)})
    net["b"] = net["a"]
    weight = net["a"].weight
    with replaced(net, {"a.weight": torch.ones(2, 2)}):
        assert torch.equal(net["b"].weight, torch.ones(2, 2))
    assert net["a"].weight is weight
    assert isinstance(weight, nn.Parameter)


def test_a_tied_parameter_is_replaced_everywhere_at_any_depth() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    with replaced(net, {"0.weight": torch.ones(2, 2)}), replaced(net, {"0.weight": 2 * torch.ones(2, 2)}):
        assert torch.equal(net[1].weight, 2 * torch.ones(2, 2))
    assert net[0].weight is net[1].weight


def test_a_failing_call_leaves_the_module_as_it_was() -> None:
    net = nn.Linear(2, 2)
    weight = net.weight
    with pytest.raises(RuntimeError):
        call(net, {"weight": torch.ones(2, 2)}, torch.ones(3))
    assert net.weight is weight
    with pytest.raises(KeyError, match="wieght"):
        call(net, {"wieght": weight}, torch.ones(2))


@pytest.fixture
def hurried_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried_threads")
def test_two_threads_on_one_learner_leave_each_other_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 6), SupportStatisticsNorm(6), nn.Tanh(), nn.Linear(6, 3)).double()
    learner, y = MAML(net, 0.5, 3), one_hot(torch.arange(3).repeat(2), 3).double()
    before = {name: (id(p), p.detach().clone()) for name, p in learner.named_parameters()}
    tasks = torch.randn(2, 6, 4, dtype=torch.float64)

    def solve(x: Tensor) -> Tensor:
        return learner.predict(learner.adapt(Batch(x, y)), x).detach()

    alone = [solve(x) for x in tasks]
    with ThreadPoolExecutor(2) as threads:
        many = list(threads.map(lambda x: [solve(x) for _ in range(20)], tasks))
    for expected, found in zip(alone, many, strict=True):
        torch.testing.assert_close(torch.stack(found), expected.expand(20, -1, -1), rtol=1e-10, atol=1e-10)
    for name, parameter in learner.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])


COMPILED = """
import torch
from torch import nn
from kshot.weights import call
net, x = nn.Linear(2, 2), torch.randn(3, 2)
others = {"weight": torch.eye(2)}
compiled = torch.compile(lambda x: call(net, others, x), backend="eager", fullgraph=True)
torch.testing.assert_close(compiled(x), x + net.bias)
"""


def test_the_compiler_follows_a_call_with_other_weights() -> None:
    # In a process of its own: the checks of annotations in this one are beyond the compiler.
    subprocess.run([sys.executable, "-c", COMPILED], check=True)
