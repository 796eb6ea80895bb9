import pytest
import torch
from torch import nn
from torch.func import functional_call

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
