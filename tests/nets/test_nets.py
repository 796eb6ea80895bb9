from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kshot.nets.conv import Conv4
from kshot.nets.features import CentreAndNormalise, CosineClassifier
from kshot.nets.mlp import MLP
from kshot.nets.norm import BatchStatisticsNorm, PerStepNorm, SupportStatisticsNorm, group_norm, recorded_statistics
from kshot.nets.relation import relation_encoder, relation_score
from kshot.nets.resnet import ResNet12


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("net", "shape", "features"),
    [
        (Conv4(), (1, 28, 28), 64),
        (Conv4(3), (3, 84, 84), 1600),
        (Conv4(3, 32), (3, 84, 84), 800),
        (Conv4(1, 64, "stride", "mean"), (1, 28, 28), 64),
        (Conv4(1, 64, "stride"), (1, 28, 28), 256),
        (Conv4(3, 32, "pool", "mean"), (3, 84, 84), 32),
        (Conv4(1, 5, norm=group_norm), (1, 20, 36), 10),
    ],
)
def test_conv4_has_the_features_of_its_papers(net: Conv4, shape: tuple[int, ...], features: int) -> None:
    assert net(torch.rand(2, *shape)).shape == (2, features)


def randomise(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


def test_pooling_before_relu_gives_the_numbers_of_relu_before_pooling() -> None:
    net, x = randomise(Conv4(2, 6).double()), torch.randn(5, 2, 20, 20, dtype=torch.float64)
    maps = x
    for convolution, norm, _, _ in net.blocks:
        maps = F.max_pool2d(norm(convolution(maps)).relu(), 2)
    assert torch.equal(net(x), maps.flatten(1))


def test_the_strided_variant_is_convolution_normalisation_relu_and_a_mean() -> None:
    net, x = randomise(Conv4(1, 6, "stride", "mean", BatchStatisticsNorm).double()), torch.randn(5, 1, 28, 28).double()
    maps = x
    for convolution, norm, _, _ in net.blocks:
        maps = F.conv2d(maps, convolution.weight, convolution.bias, stride=2, padding=1)
        mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
        maps = (maps - mean) / (variance + 1e-5).sqrt()
        maps = (maps * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()
    assert maps.shape == (5, 6, 2, 2)
    torch.testing.assert_close(net(x), maps.mean((2, 3)), rtol=1e-10, atol=1e-10)


def conv4_size(channels: int, filters: int) -> int:
    convolutions = sum((9 * width + 1) * filters for width in (channels, filters, filters, filters))
    return convolutions + 4 * 2 * filters


def resnet12_size(channels: int, widths: tuple[int, ...]) -> int:
    pairs = zip((channels, *widths), widths, strict=False)
    return sum(9 * i * o + 2 * 9 * o * o + i * o + 4 * 2 * o for i, o in pairs)


@pytest.mark.parametrize(
    ("net", "formula", "known"),
    [
        (Conv4(), conv4_size(1, 64), 111_936),  # prototypical networks, Omniglot
        (Conv4(3), conv4_size(3, 64), 113_088),  # prototypical networks, miniImageNet
        (
            nn.Sequential(Conv4(1, 64, "stride", "mean", BatchStatisticsNorm), nn.Linear(64, 5)),
            conv4_size(1, 64) + 64 * 5 + 5,
            112_261,  # MAML, Omniglot
        ),
        (
            nn.Sequential(Conv4(3, 32, norm=BatchStatisticsNorm), nn.Linear(800, 5)),
            conv4_size(3, 32) + 800 * 5 + 5,
            32_901,  # MAML, miniImageNet
        ),
        (MLP(1, 40, 40, 1), 2 * 40 + 41 * 40 + 41, 1_761),  # MAML, sinusoid
        (ResNet12(), resnet12_size(3, (64, 160, 320, 640)), 12_424_320),  # MetaOptNet
    ],
    ids=["conv4", "conv4 colour", "maml omniglot", "maml miniimagenet", "maml sinusoid", "resnet12"],
)
def test_nets_have_as_many_parameters_as_those_of_their_papers(net: nn.Module, formula: int, known: int) -> None:
    assert count(net) == formula == known


def test_resnet12_gives_640_features() -> None:
    net = ResNet12().eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, 16, 16)).shape == (1, 640)


def test_resnet12_takes_another_norm_and_other_widths() -> None:
    net = ResNet12(1, (2, 4, 6, 8), group_norm)
    assert net(torch.rand(3, 1, 20, 20)).shape == (3, 8)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


def test_mlp_has_relu_between_its_layers_only() -> None:
    net, x = MLP(3, 5, 4, 2), torch.randn(7, 3)
    first, _, second, _, third = net.layers
    torch.testing.assert_close(net(x), third(second(first(x).relu()).relu()))
    assert (MLP(3, 2)(x) < 0).any()


def test_mlp_needs_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"needs the sizes of its input and output; found \(3,\)"):
        MLP(3)


STOCK: list[tuple[tuple[int, ...], Callable[..., nn.Module]]] = [
    ((6, 3, 5, 4), nn.BatchNorm2d),
    ((6, 3), nn.BatchNorm1d),
    ((1, 3, 2, 2), nn.BatchNorm2d),
]


@pytest.mark.parametrize(("shape", "stock"), STOCK)
def test_batch_statistics_norm_equals_batch_norm_in_value_and_gradient(
    shape: tuple[int, ...], stock: Callable[..., nn.Module]
) -> None:
    norms = BatchStatisticsNorm(3).double(), stock(3, track_running_stats=False).double()
    weight, bias, v = torch.randn(3).double(), torch.randn(3).double(), torch.randn(shape).double()
    found = []
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for norm in norms:
        with torch.no_grad():
            norm.weight.copy_(weight)
            norm.bias.copy_(bias)
        y = norm(x)
        found.append((y, *torch.autograd.grad(y, [x, norm.weight, norm.bias], v)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_batch_statistics_norm_is_the_same_in_eval_mode_and_keeps_no_buffers() -> None:
    norm, x = BatchStatisticsNorm(3), torch.randn(6, 3)
    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert list(norm.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("kind", [BatchStatisticsNorm, SupportStatisticsNorm])
def test_a_large_mean_leaves_the_normalised_values_right_in_float32(kind: type[nn.Module]) -> None:
    x = 1e4 + torch.randn(64, 3, 5, 5)
    norm = kind(3)
    exact = nn.BatchNorm2d(3, track_running_stats=False).double()(x.double())
    # A few roundings of 1e4, of 5e-4 each; E[x^2] - mean^2 would be off by more than the variance itself.
    assert (norm(x) - exact).abs().max() < 5e-3


def conv_of_support_statistics() -> nn.Module:
    body = Conv4(1, 4, "stride", "mean", SupportStatisticsNorm)
    return randomise(nn.Sequential(body, nn.Linear(4, 3))).double()


def by_support(net: nn.Module, support: Tensor, query: Tensor) -> Tensor:
    with recorded_statistics(net) as statistics:
        net(support)
    predictions: Tensor = functional_call(net, statistics, (query,))
    return predictions


def test_support_statistics_are_recorded_for_every_layer_by_the_names_of_its_buffers() -> None:
    net = conv_of_support_statistics()
    with recorded_statistics(net) as statistics:
        net(torch.randn(6, 1, 16, 16).double())
    assert set(statistics) == {name for name, _ in net.named_buffers()}
    assert len(statistics) == 8
    assert not net.state_dict().keys() & statistics.keys()
    net(torch.randn(2, 1, 16, 16).double())
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_with_support_statistics_a_query_depends_on_no_other() -> None:
    net = conv_of_support_statistics()
    support, query = torch.randn(6, 1, 16, 16).double(), torch.randn(4, 1, 16, 16).double()
    together = by_support(net, support, query)
    apart = torch.cat([by_support(net, support, one) for one in query.split(1)])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)
    assert (together - net(query)).norm() > 1e-3 * together.norm(), "by the queries' own statistics it is another net"


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
def test_support_statistics_norm_normalises_by_the_moments_of_the_support_set(shape: tuple[int, ...]) -> None:
    norm = randomise(SupportStatisticsNorm(3)).double()
    support, query = 2 + 3 * torch.randn(7, *shape).double(), torch.randn(5, *shape).double()
    rows = support.movedim(1, -1).reshape(-1, 3)
    scaled = (query.movedim(1, -1) - rows.mean(0)) / (rows.var(0, correction=0) + norm.eps).sqrt()
    expected = (scaled * norm.weight + norm.bias).movedim(-1, 1)
    torch.testing.assert_close(by_support(norm, support, query), expected, rtol=1e-10, atol=1e-10)


def test_without_given_statistics_support_statistics_norm_normalises_by_the_batch() -> None:
    x = torch.randn(6, 3, 4, 4)
    assert torch.equal(SupportStatisticsNorm(3)(x), BatchStatisticsNorm(3)(x))


def test_a_layer_of_support_statistics_has_one_place() -> None:
    norm = SupportStatisticsNorm(3)
    twice = nn.Sequential(norm, nn.Linear(3, 3), norm)
    with pytest.raises(ValueError, match=r"the layer '0' \(SupportStatisticsNorm\) is used twice in one pass"):
        by_support(twice, torch.randn(5, 3), torch.randn(2, 3))


@pytest.mark.parametrize("norm", [BatchStatisticsNorm(3), PerStepNorm(3, steps=2), SupportStatisticsNorm(3)])
def test_other_channels_and_single_values_are_refused(norm: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 3, \*space\) for 3 channels; found \(5, 1\)"):
        norm(torch.randn(5, 1))
    with pytest.raises(ValueError, match=r"more than one value a channel; found \(1, 3\)"):
        norm(torch.randn(1, 3))
    assert norm(torch.randn(1, 3, 2)).shape == (1, 3, 2)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (4, 1), (8, 1), (32, 4), (64, 8), (640, 80)])
def test_group_norm_has_8_channels_a_group(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert (norm.num_groups, norm.num_channels) == (groups, channels)


def test_group_norm_depends_on_no_other_example() -> None:
    norm, x = group_norm(16), torch.randn(5, 16, 3, 3)
    torch.testing.assert_close(norm(x), torch.cat([norm(one) for one in x.split(1)]))


def test_simple_shot_compares_centred_directions() -> None:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    x = torch.randn(10, 3)
    mean = CentreAndNormalise.mean_of(encoder, x, batch_size=4)
    torch.testing.assert_close(mean, encoder[0](x).mean(0))
    assert encoder.training
    encoder[1].eval()
    pictures = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    torch.testing.assert_close(
        CentreAndNormalise.mean_of(encoder, pictures), encoder[0](torch.tensor([0.0, 0.2, 1.0])).detach()
    )
    assert not encoder[1].training  # each part is in the mode that it was in
    z = CentreAndNormalise(mean)(encoder[0](x))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(10))
    torch.testing.assert_close(z, nn.functional.normalize(encoder[0](x) - mean))
    assert CentreAndNormalise(mean)(mean[None]).abs().max() == 0


def test_a_cosine_classifier_scores_by_angle_alone() -> None:
    head, z = CosineClassifier(4, 3), torch.randn(5, 4)
    expected = 10 * nn.functional.cosine_similarity(z[:, None], head.weight, dim=-1)
    torch.testing.assert_close(head(7 * z), expected)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_the_nets_of_relation_networks_fit_together(batch_statistics: bool) -> None:
    norm = BatchStatisticsNorm if batch_statistics else group_norm
    maps = relation_encoder(3, 8)(torch.randn(4, 3, 32, 32))
    assert maps.shape == (4, 8, 8, 8)
    assert relation_score(8, 8, norm=norm)(torch.cat([maps, maps], 1)).shape == (4, 1)
