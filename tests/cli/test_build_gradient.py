"""What the options of MAML build."""

import torch
from torch import nn

from kshot.cli.build_gradient import build_maml
from kshot.cli.learner_options import MAMLOptions
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


def test_norms_can_be_left_to_the_outer_loop() -> None:
    learner = build_maml(MAMLOptions(adapts="no_norm"), PICTURE, None)
    norms = {id(p) for layer in learner.modules() if isinstance(layer, BatchStatisticsNorm) for p in layer.parameters()}
    left_out = {name for name, p in learner.model.named_parameters() if id(p) in norms}
    assert len(left_out) == 8
    assert set(learner.adapted) == {name for name, _ in learner.model.named_parameters()} - left_out
