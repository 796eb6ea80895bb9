"""What the options of MAML build."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from kshot.cli.build_gradient import build_maml
from kshot.cli.learner_options import MAMLOptions
from kshot.core import Batch, Episode, one_hot
from kshot.nets.norm import BatchStatisticsNorm

PICTURE = torch.Size([1, 28, 28])


def test_weights_start_as_in_the_code_of_finn_et_al() -> None:
    conv = build_maml(MAMLOptions(start="finn"), PICTURE, None).model
    *_, head = (layer for layer in conv.modules() if isinstance(layer, nn.Linear))
    assert 0.9 < head.weight.std() < 1.1
    *_, last = (layer for layer in conv.modules() if isinstance(layer, nn.Conv2d))
    assert last.weight.abs().max() <= (6 / (2 * 64 * 9)) ** 0.5
    torch.testing.assert_close(last.weight.std().item(), (2 / (2 * 64 * 9)) ** 0.5, rtol=0.02, atol=0)
    connected = build_maml(MAMLOptions(net="connected", start="finn"), PICTURE, None).model
    for layer in (layer for layer in connected.modules() if isinstance(layer, nn.Linear)):
        assert 0.008 < layer.weight.std() < 0.0095  # cut off at two deviations
        assert layer.weight.abs().max() <= 0.02
        assert not layer.bias.any()


def test_a_head_at_zero_stays_there_and_tells_classes_apart_by_the_support_set_alone() -> None:
    torch.manual_seed(0)
    learner = build_maml(MAMLOptions(start="zero_head", adapts="head", inner_steps=2, ways=3), PICTURE, None)
    head = learner.model
    assert isinstance(head, nn.Linear)
    x, y = torch.rand(3, *PICTURE), one_hot([0, 1, 2], 3)
    tasks = Episode(Batch(x[None], y[None]), Batch(x[None], y[None]))
    optimizer = torch.optim.Adam(learner.parameters())
    learner.meta_loss(tasks).backward()
    optimizer.step()
    assert head.weight.grad is None
    assert not head.weight.any()
    assert not head.bias.any()
    embedded, renamed = learner.eval().encode(x), one_hot([1, 2, 0], 3)
    first, second = (learner.predict(learner.adapt(Batch(embedded, labels)), embedded) for labels in (y, renamed))
    assert first.std() > 0
    torch.testing.assert_close(second, first @ renamed)


def test_a_head_at_zero_must_adapt_and_leave_steps_to_the_body() -> None:
    with pytest.raises(ValueError, match="leave --start zero_head out"):
        build_maml(MAMLOptions(start="zero_head", adapts="body"), PICTURE, None)
    with pytest.raises(ValueError, match="more --inner-steps"):
        build_maml(MAMLOptions(start="zero_head"), PICTURE, None)
    build_maml(MAMLOptions(start="zero_head", inner_steps=2), PICTURE, None)


def test_norms_can_be_left_to_the_outer_loop() -> None:
    learner = build_maml(MAMLOptions(adapts="no_norm"), PICTURE, None)
    norms = {id(p) for layer in learner.modules() if isinstance(layer, BatchStatisticsNorm) for p in layer.parameters()}
    left_out = {name for name, p in learner.model.named_parameters() if id(p) in norms}
    assert len(left_out) == 8
    assert set(learner.adapted) == {name for name, _ in learner.model.named_parameters()} - left_out


@pytest.mark.parametrize(("net", "adapts"), [("pooled", "head"), ("connected", "head"), ("strided", "all")])
def test_features_of_one_length_add_no_parameters(
    net: Literal["pooled", "connected", "strided"], adapts: Literal["head", "all"]
) -> None:
    plain = MAMLOptions(net=net, adapts=adapts, ways=3, inner_steps=2)
    learner = build_maml(replace(plain, feature_length=40.0), PICTURE, None)
    counts = [sum(p.numel() for p in one.parameters()) for one in (learner, build_maml(plain, PICTURE, None))]
    assert counts[0] == counts[1]
    body = learner.encoder if adapts == "head" else learner.model.get_submodule("0")
    features = body(torch.rand(4, *PICTURE))
    torch.testing.assert_close(features.norm(dim=1), torch.full((4,), 40.0), rtol=1e-3, atol=0)


def test_sine_waves_have_no_features_of_a_length() -> None:
    with pytest.raises(ValueError, match="needs a net of pictures"):
        build_maml(MAMLOptions(feature_length=40.0), None, None)
