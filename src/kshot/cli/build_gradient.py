"""From options to learners that take gradient steps."""

from collections.abc import Callable

import torch
from torch import nn

from kshot.cli.features import features_of
from kshot.cli.learner_options import MAMLOptions, ProtoMAMLOptions, ReptileOptions
from kshot.learners.gradient import MAML, ProtoMAML, Reptile
from kshot.learners.gradient.update_rules import adam, sgd
from kshot.losses import cross_entropy, mean_squared_error
from kshot.nets.context import FiLM, WithContext
from kshot.nets.conv import Conv4
from kshot.nets.mlp import MLP
from kshot.nets.norm import BatchStatisticsNorm, FixedLength, PerStepNorm, SupportStatisticsNorm

__all__ = ["build_maml", "build_proto_maml", "build_reptile"]


def build_maml(options: MAMLOptions, picture: torch.Size | None, inner_steps: int | None) -> MAML:
    """Build MAML or one of its kin for pictures of a shape, or, without one, for sine waves.

    Raises:
        ValueError: two options do not go together.
    """
    if options.per_step_norm and (picture is None or options.adapts == "head"):
        raise ValueError(
            "--per-step-norm needs a net of pictures inside the inner loop: not sinusoid, nor --adapts head."
        )
    if options.adapts == "context" and options.net == "connected":
        raise ValueError("--adapts context steers convolutions, or sine waves; leave --net connected out.")
    if options.feature_length is not None and picture is None:
        raise ValueError("--feature-length needs a net of pictures: not sinusoid.")
    body, head = _waves(options) if picture is None else _pictures(options, picture)
    if options.start == "finn":
        _start_as_finn(body, head)
    elif options.start == "zero_head":
        _start_at_zero(options, head)
    alone = options.adapts == "head"
    return MAML(
        head if alone else nn.Sequential(body, head),
        (0.01 if picture is None else 0.4) if options.inner_lr is None else options.inner_lr,
        options.inner_steps,
        options.differentiate,
        body if alone else None,
        _filter(options, body),
        mean_squared_error if picture is None else cross_entropy,
        test_steps=options.test_steps if inner_steps is None else inner_steps,
        learn_lr=options.learn_lr,
        multi_step=options.multi_step,
        first_order_until=options.first_order_until,
        proximity=options.proximity,
        damping=options.damping,
    )


def build_proto_maml(options: ProtoMAMLOptions, channels: int, inner_steps: int | None) -> ProtoMAML:
    """Build Proto-MAML; queries are normalised by the support set."""
    steps = options.inner_steps if inner_steps is None else inner_steps
    return ProtoMAML(Conv4(channels, options.filters, norm=SupportStatisticsNorm), options.inner_lr, steps)


def build_reptile(options: ReptileOptions, picture: torch.Size, inner_steps: int | None) -> Reptile:
    """Build Reptile with the paper's net, whose last maps are flattened."""
    norm = BatchStatisticsNorm if options.transductive else SupportStatisticsNorm
    body = Conv4(picture[0], options.filters, "stride" if options.net == "strided" else "pool", "flatten", norm)
    model = nn.Sequential(body, nn.Linear(features_of(body, picture), options.ways))
    steps = options.test_steps if inner_steps is None else inner_steps
    rule = adam((0.0, 0.999)) if options.inner_rule == "adam" else sgd()
    learner = MAML(model, options.inner_lr, steps, "first_order", rule=rule)
    return Reptile(learner, options.inner_steps, options.batch_size, tail=options.tail)


def _waves(options: MAMLOptions) -> tuple[nn.Module, nn.Module]:
    if options.adapts == "context":
        return WithContext(MLP(1 + 5, 40, 40, 1), 5), nn.Identity()
    return nn.Sequential(MLP(1, 40, 40), nn.ReLU()), nn.Linear(40, 1)


def _pictures(options: MAMLOptions, picture: torch.Size) -> tuple[nn.Module, nn.Module]:
    norm: Callable[[int], nn.Module] = BatchStatisticsNorm
    connected = options.net == "connected"
    if options.adapts == "head":  # outside the inner loop running averages do no harm, and queries stay apart
        norm = nn.BatchNorm1d if connected else nn.BatchNorm2d
    elif options.per_step_norm:
        norm = lambda channels: PerStepNorm(channels, options.inner_steps)  # noqa: E731
    if connected:
        mlp = MLP(picture.numel(), 256, 128, 64, 64, norm=norm)
        return _before_head(options, nn.Sequential(nn.Flatten(), mlp, norm(64), nn.ReLU()), 64)
    strided = options.net == "strided"
    conv = Conv4(picture[0], options.filters, *(("stride", "mean") if strided else ("pool", "flatten")), norm)
    if options.adapts == "context":
        third = conv.blocks[2]
        assert isinstance(third, nn.Sequential)
        third.insert(2, FiLM(options.filters, 100))  # behind the third convolution and its normalisation
    return _before_head(options, conv, features_of(conv, picture))


def _before_head(options: MAMLOptions, body: nn.Module, features: int) -> tuple[nn.Module, nn.Module]:
    if options.feature_length is not None:
        body = nn.Sequential(body, FixedLength(options.feature_length))
    return body, nn.Linear(features, options.ways)


def _start_as_finn(body: nn.Module, head: nn.Module) -> None:
    """Draw weights as the code of Finn et al. 2017 does: their size says how far an inner step turns a layer."""
    layers = [layer for layer in (*body.modules(), head) if isinstance(layer, nn.Conv2d | nn.Linear)]
    convolutional = any(isinstance(layer, nn.Conv2d) for layer in layers)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
        elif convolutional and layer is head:
            nn.init.normal_(layer.weight)
        else:
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _start_at_zero(options: MAMLOptions, head: nn.Module) -> None:
    """Set the last layer to zero, where the outer loop leaves it."""
    if options.adapts in ("body", "context"):
        raise ValueError(f"--adapts {options.adapts} leaves the last layer as it is; leave --start zero_head out.")
    if options.adapts != "head" and options.inner_steps == 1:
        raise ValueError(
            "the first inner step from --start zero_head moves the last layer alone; give more --inner-steps, or "
            "--adapts head."
        )
    for parameter in head.parameters():
        nn.init.zeros_(parameter).requires_grad_(False)


def _filter(options: MAMLOptions, body: nn.Module) -> Callable[[str], bool] | None:
    if options.adapts == "context":
        return lambda name: name.endswith("context")
    # What differs from step to step never adapts.
    kinds = BatchStatisticsNorm | PerStepNorm if options.adapts == "no_norm" else PerStepNorm
    norms = {id(p) for layer in body.modules() if isinstance(layer, kinds) for p in layer.parameters()}
    left_out = {f"0.{name}" for name, p in body.named_parameters() if id(p) in norms}
    if options.adapts == "body":
        return lambda name: name.startswith("0.") and name not in left_out
    return (lambda name: name not in left_out) if left_out else None
