"""Neural processes: a network reads points of a function and predicts the rest, with how sure it is."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Inputs, Learner, State
from kshot.losses import gaussian_log_likelihood
from kshot.nets.attention import attend
from kshot.nets.mlp import MLP
from kshot.validation import check_sizes

__all__ = ["Averaged", "Kept", "NeuralProcess"]


class Averaged(NamedTuple):
    """What a conditional neural process remembers of a task.

    Args:
        read: ``()`` how many examples it has read.
        total: ``(width,)`` the sum of their representations.
    """

    read: Tensor
    total: Tensor


class Kept(NamedTuple):
    """What an attentive neural process remembers of a task.

    Args:
        keys: ``(1 + n, width)`` where each example lies; the first row is the token that stands for none of them.
        values: ``(1 + n, width)`` what each example says.
    """

    keys: Tensor
    values: Tensor


@final
class NeuralProcess(Learner):
    r"""Regress by a network that reads the support set: a conditional neural process, or an attentive one.

    Every example has a representation :math:`r_i = h(x_i, y_i)`. A query takes their mean, or attends to them, and is
    predicted from that and itself:

    .. math::
        r(x) = \frac1n \sum_i r_i \quad\text{or}\quad \sum_i \mathrm{softmax}_i(q(x) \cdot k(x_i))\, r_i, \qquad
        (\mu, \rho) = g(x, r(x)), \qquad s = \epsilon + (1 - \epsilon) \log(1 + e^\rho)

    The mean forgets which example said what, so that predictions miss even the support points; attention, with several
    heads, does not. Without any support example the mean is zero. Attention has one more example, learned, that stands for
    none of the others; it is not in the paper, whose attention needs an example.

    Marta Garnelo et al. 2018, "Conditional neural processes"; Hyunjik Kim et al. 2019, "Attentive neural processes", its
    deterministic path. h has four layers and g three, as there, where :math:`\epsilon` is 0.1.

    Args:
        inputs: how many numbers an input has.
        targets: how many numbers are predicted.
        width: of every layer and representation.
        heads: of attention; None for the mean.
        least_deviation: :math:`\epsilon`. It should be below the noise: where all else is known, the log-likelihood of a
            point is at most :math:`-\log \epsilon - 0.92`.

    Raises:
        ValueError: a size is below one, heads do not divide the width, or the least deviation is not between zero and one.

    >>> learner = NeuralProcess(1, heads=8)
    >>> wave = Batch(torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[-0.8], [0.0], [0.8]]))
    >>> state = learner.adapt(Batch(learner.encode(wave.x), wave.y))
    >>> mean, log_deviation = learner.predict(state, learner.encode(torch.zeros(7, 1))).chunk(2, -1)
    >>> mean.shape, bool((log_deviation.exp() > 0.01).all())
    (torch.Size([7, 1]), True)
    """

    fixed_ways = True  # the number of targets is built in

    def __init__(
        self,
        inputs: int,
        targets: int = 1,
        width: int = 128,
        *,
        heads: int | None = None,
        least_deviation: float = 0.01,
    ) -> None:
        super().__init__(gaussian_log_likelihood)
        check_sizes(inputs=inputs, targets=targets, width=width)
        if heads is not None and (heads < 1 or width % heads):
            raise ValueError(f"heads must divide the width; found {heads} heads and a width of {width}.")
        if not 0 < least_deviation < 1:
            raise ValueError(f"least_deviation must be above 0 and below 1; found {least_deviation}.")
        self.encoder = MLP(inputs + targets, width, width, width, width)
        self.decoder = MLP(inputs + width, width, width, 2 * targets)
        self.memory = _Mean(width) if heads is None else _Attention(inputs, width, heads)
        self.inputs, self.targets, self.least_deviation = inputs, targets, least_deviation

    def encode(self, x: Float[Tensor, "m inputs"]) -> tuple[Tensor, Inputs]:
        """Return the inputs, and where they lie for attention.

        Raises:
            ValueError: x has another number of columns than the learner was built for.
        """
        if x.shape[-1] != self.inputs:
            raise ValueError(
                f"this NeuralProcess was built for inputs={self.inputs}; found x with {x.shape[-1]} columns. Build one with "
                "as many."
            )
        return x, self.memory.place(x)

    def init(self) -> Averaged | Kept:
        """Return what is remembered before any example."""
        return self.memory.init()

    def update(self, state: State, support: Batch) -> Averaged | Kept:
        """Return the state with more examples read: two sums, or a row for each more.

        Raises:
            ValueError: y has another number of columns than the learner was built for.
        """
        if support.y.shape[1] != self.targets:
            raise ValueError(
                f"this NeuralProcess was built for targets={self.targets}; found y with {support.y.shape[1]} columns. Build "
                "one with as many."
            )
        x, places = support.x
        return self.memory.write(state, places, self.encoder(torch.cat([x, support.y], -1)))

    def adapt(self, support: Batch) -> Averaged | Kept:
        """Return what is remembered of the support set."""
        return self.update(self.init(), support)

    def predict(self, state: State, x: tuple[Tensor, Inputs]) -> Float[Tensor, "q columns"]:
        """Return the means and then the logarithms of the deviations of the targets, ``(q, 2 targets)``."""
        inputs, places = x
        mean, spread = self.decoder(torch.cat([inputs, self.memory.read(state, places)], -1)).chunk(2, -1)
        deviation = self.least_deviation + (1 - self.least_deviation) * F.softplus(spread)
        return torch.cat([mean, deviation.log()], -1)


@final
class _Mean(nn.Module):
    """The mean of representations, by two running sums."""

    nothing: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(width), persistent=False)

    def place(self, x: Float[Tensor, "m inputs"]) -> Float[Tensor, "m 0"]:
        return x[:, :0]  # a mean asks nobody where they lie

    def init(self) -> Averaged:
        return Averaged(torch.zeros_like(self.nothing[0]), torch.zeros_like(self.nothing))

    def write(self, state: Averaged, places: Float[Tensor, "n 0"], r: Float[Tensor, "n width"]) -> Averaged:
        return Averaged(state.read + len(places), state.total + r.sum(0))

    def read(self, state: Averaged, places: Float[Tensor, "q 0"]) -> Float[Tensor, "q width"]:
        return (state.total / state.read.clamp_min(1)).expand(len(places), -1)


@final
class _Attention(nn.Module):
    """Attention of several heads."""

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = MLP(inputs, width, width)  # of support and query alike, as keys and queries come from one place
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.no_key, self.no_value = nn.Parameter(torch.zeros(1, width)), nn.Parameter(torch.zeros(1, width))

    def place(self, x: Float[Tensor, "m inputs"]) -> Float[Tensor, "m width"]:
        place: Tensor = self.embed(x)
        return place

    def init(self) -> Kept:
        return Kept(self.no_key, self.no_value)

    def write(self, state: Kept, places: Float[Tensor, "n width"], r: Float[Tensor, "n width"]) -> Kept:
        return Kept(torch.cat([state.keys, self.key(places)]), torch.cat([state.values, self.value(r)]))

    def read(self, state: Kept, places: Float[Tensor, "q width"]) -> Float[Tensor, "q width"]:
        queries, keys, values = (
            rows.unflatten(-1, (self.heads, -1)).transpose(0, 1) for rows in (self.query(places), *state)
        )
        read: Tensor = self.output(attend(queries, keys, values).transpose(0, 1).flatten(1))
        return read
