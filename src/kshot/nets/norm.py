"""Normalisation for few examples, with the statistics that it uses in the name.

A task has a handful of examples, so whose statistics normalise them decides what a learner may know:

* ``BatchStatisticsNorm``: of the batch at hand, queries included at test time: **transductive** (MAML).
* ``PerStepNorm``: the same, with a scale and shift for each inner step (MAML++).
* ``SupportStatisticsNorm``: of the support set; queries are normalised by what the support set gave.
* running averages: ``torch.nn.BatchNorm2d`` in an encoder (prototypical networks). It must not stand inside an inner
  loop in train mode, where it would write to its buffers.
* none: ``group_norm``, and ``FixedLength`` for features.

All are plain operations: torch's fused batch and layer normalisation give wrong second derivatives when a reverse pass
goes through vmap (pytorch/functorch issue 534; measured on torch 2.13).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.plain_operations.normalisation import moments, normalised, per_channel
from kshot.weights import one_thread

__all__ = [
    "BatchStatisticsNorm",
    "FixedLength",
    "PerStepNorm",
    "SupportStatisticsNorm",
    "group_norm",
    "normalises_by_batch",
    "recorded_statistics",
]


def _channel_moments(x: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of ``(n, channels, *space)``.

    Raises:
        ValueError: there are other channels, or one value for each, which is its own mean.
    """
    if x.dim() < 2 or x.shape[1] != channels:  # it would broadcast
        raise ValueError(f"expected (n, {channels}, *space) for {channels} channels; found {tuple(x.shape)}.")
    if x.numel() <= channels:
        raise ValueError(
            f"the batch's statistics need more than one value a channel; found {tuple(x.shape)}. Give more examples, or "
            "take group_norm."
        )
    return moments(x, (0, *range(2, x.dim())))


class BatchStatisticsNorm(nn.Module):
    r"""Normalise each channel by the mean and variance of the batch, at training and at test time.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    Sergey Ioffe, Christian Szegedy 2015, "Batch normalization". Without running averages a query's prediction depends
    on the other queries: a learner with this layer is transductive.

    Args:
        channels: size of axis 1 of the input ``(n, channels, *space)``.
        eps: added to the variance.

    >>> y = BatchStatisticsNorm(3)(torch.randn(8, 3, 5, 5))
    >>> bool(y.mean((0, 2, 3)).abs().max() < 1e-5)
    True
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "n channels *space"]) -> Float[Tensor, "n channels *space"]:
        """Normalise ``(n, channels, *space)`` over every axis but the channels."""
        return self._normalised(x, *_channel_moments(x, len(self.weight)))

    def _normalised(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return normalised(x, per_channel(x, mean), per_channel(x, variance), self.weight, self.bias, self.eps)


class PerStepNorm(nn.Module):
    """Normalise by the batch, with another scale and shift at each inner step.

    The buffer ``step`` says which, and MAML sets it: weights that have just been moved meet statistics, scale and shift of
    their own. Queries have those of the last step. Like the code of the paper it normalises queries by the queries at
    hand, so that a learner with this layer is transductive.

    Antreas Antoniou, Harrison Edwards, Amos Storkey 2019, "How to train your MAML".

    Args:
        channels: size of axis 1 of the input ``(n, channels, *space)``.
        steps: of the inner loop; further ones are as the last.
        eps: added to the variance.

    >>> PerStepNorm(3, steps=5)(torch.randn(8, 3, 5, 5)).shape
    torch.Size([8, 3, 5, 5])
    """

    step: Tensor

    def __init__(self, channels: int, steps: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(steps, channels))
        self.bias = nn.Parameter(torch.zeros(steps, channels))
        self.register_buffer("step", torch.tensor(0), persistent=False)
        self.eps = eps

    def forward(self, x: Float[Tensor, "n channels *space"]) -> Float[Tensor, "n channels *space"]:
        """Normalise ``(n, channels, *space)`` over every axis but the channels."""
        numbers = torch.arange(len(self.weight), device=self.step.device)
        chosen = (numbers == self.step.clamp_max(len(self.weight) - 1)).to(self.weight.dtype)
        weight, bias = chosen @ self.weight, chosen @ self.bias  # a look-up by a tensor crashes compiled programs
        mean, variance = _channel_moments(x, self.weight.shape[1])
        return normalised(x, per_channel(x, mean), per_channel(x, variance), weight, bias, self.eps)


class SupportStatisticsNorm(BatchStatisticsNorm):
    """Normalise queries by the statistics of the support set.

    It normalises by the batch while its buffers ``mean`` and ``variance`` are empty, and by them once they are given.
    MAML records them from the support set (``recorded_statistics``), keeps them in its state, and so stays inductive.

    Args:
        channels: size of axis 1 of the input ``(n, channels, *space)``.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        self.register_buffer("mean", torch.empty(0), persistent=False)
        self.register_buffer("variance", torch.empty(0), persistent=False)

    def forward(self, x: Float[Tensor, "n channels *space"]) -> Float[Tensor, "n channels *space"]:
        """Normalise ``(n, channels, *space)`` by the given statistics, or by the batch where none are given."""
        given = self.mean.numel() > 0
        return self._normalised(x, self.mean, self.variance) if given else super().forward(x)


class FixedLength(nn.Module):
    r"""Centre the features of each example, and bring them to one length.

    .. math:: y = \ell \, (x - \bar x) / \lVert x - \bar x \rVert

    Dot products of what it returns are cosines of centred features, times the square of the length.

    Args:
        length: of what it returns.
        eps: added to the square of the length of what it is given.

    Raises:
        ValueError: the length is not above zero.

    >>> FixedLength(2.0)(torch.tensor([[1.0, 3.0], [0.0, -10.0]]))
    tensor([[-1.4142,  1.4142],
            [ 1.4142, -1.4142]])
    """

    def __init__(self, length: float, eps: float = 1e-6) -> None:
        super().__init__()
        if not length > 0:
            raise ValueError(f"length must be above 0; found {length}.")
        self.length, self.eps = length, eps

    def forward(self, x: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
        """Bring the features of each of ``n`` examples to the length."""
        centred = x - x.mean(-1, keepdim=True)
        return self.length * centred * (centred.square().sum(-1, keepdim=True) + self.eps).rsqrt()


def normalises_by_batch(layer: nn.Module) -> bool:
    """Return whether a layer normalises an example by those beside it, at test time too."""
    return isinstance(layer, BatchStatisticsNorm | PerStepNorm) or (
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and not layer.track_running_stats
    )


@contextmanager
def recorded_statistics(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Note the statistics that each SupportStatisticsNorm of ``net`` uses, by the name of the buffer they belong in.

    Other threads wait meanwhile: what they show to ``net`` would be noted too.

    Raises:
        ValueError: one of them is used twice.
    """
    statistics: dict[str, Tensor] = {}

    def note(name: str, layer: SupportStatisticsNorm, x: Tensor) -> None:
        if f"{name}.mean" in statistics:
            raise ValueError(
                f"the layer {name!r} (SupportStatisticsNorm) is used twice in one pass, and has room for one mean and "
                "variance. Give each place a layer of its own."
            )
        statistics[f"{name}.mean"], statistics[f"{name}.variance"] = _channel_moments(x, len(layer.weight))

    with one_thread(), ExitStack() as hooks:
        for name, layer in net.named_modules():
            if isinstance(layer, SupportStatisticsNorm):
                hook = layer.register_forward_pre_hook(lambda layer, inputs, name=name: note(name, layer, inputs[0]))
                hooks.callback(hook.remove)
        yield statistics


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm with 8 channels a group, or the next more that divides: it needs no statistics of other examples.

    Yuxin Wu, Kaiming He 2018, "Group normalization".

    >>> group_norm(64).num_groups, group_norm(25).num_groups
    (8, 1)
    """
    groups = next(count for count in range(max(1, channels // 8), 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)
