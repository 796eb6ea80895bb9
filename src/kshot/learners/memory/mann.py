"""The cell of a memory-augmented neural network: it writes where it read last, or where nothing was needed for longest."""

import math
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.memory.ntm import similarity
from kshot.nets.cells import LSTM, Cell, State
from kshot.validation import check_sizes

__all__ = ["MANNCell", "MANNState"]


class MANNState(NamedTuple):
    """What the cell holds: the controller's state, the memory, and how it was used.

    ``memory`` is ``(*n, slots, width)``, ``usage`` ``(*n, slots)``, ``reading`` and ``writing``, where the heads were,
    ``(*n, heads, slots)``, and ``read`` ``(*n, heads * width)``.
    """

    controller: State
    memory: Tensor
    usage: Tensor
    reading: Tensor
    writing: Tensor
    read: Tensor


@final
class MANNCell(Cell):
    r"""An LSTM with a memory that is addressed by content alone, and written by least recently used access.

    Each head has a key k, its strength :math:`\beta` and a gate :math:`\alpha`. With :math:`w^{lu}` one at a slot that was
    used least, another for each head, and zero elsewhere,

    .. math::
        w^w &= \sigma(\alpha)\, w^r_{t-1} + (1 - \sigma(\alpha))\, w^{lu}_{t-1}, \quad
        M_i \leftarrow (1 - \textstyle\sum w^{lu}_i) M_i + \textstyle\sum w^w_i k \\
        w^r &= \mathrm{softmax}_i(\beta \cos(k, M_i)), \quad r = \textstyle\sum_i w^r_i M_i, \quad
        u = \gamma u_{t-1} + \textstyle\sum (w^r + w^w)

    Adam Santoro, Sergey Bartunov, Matthew Botvinick, Daan Wierstra, Timothy Lillicrap 2016, "Meta-learning with
    memory-augmented neural networks". There :math:`\beta` is one, which spreads reading over all slots, and each head writes
    to all of the least used slots, which then hold the same for ever: of 128 slots and four heads that leaves 32.

    Args:
        inputs: features of an input.
        hidden: features of the controller.
        slots: of the memory.
        width: numbers in a slot.
        heads: that read, each with a writing head of the same key.
        decay: gamma, of usage.

    Raises:
        ValueError: a size is below one, there are fewer slots than heads, or the decay is not between 0 and 1.
    """

    def __init__(
        self, inputs: int, hidden: int = 200, slots: int = 128, width: int = 40, heads: int = 4, decay: float = 0.99
    ) -> None:
        check_sizes(inputs=inputs, hidden=hidden, width=width, heads=heads)
        if slots < heads:
            raise ValueError(f"a MANNCell needs a slot for each head; found {slots} slots and {heads} heads.")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be between 0 and 1; found {decay}.")
        super().__init__(inputs, hidden + heads * width)
        self.slots, self.width, self.heads, self.decay = slots, width, heads, decay
        self.controller = LSTM(inputs + heads * width, hidden)
        self.addressing = nn.Linear(hidden, heads * (width + 2))
        # At first a slot that matches weighs as much as all empty ones together: else next to nothing is read of it, and
        # next to nothing is learned from that.
        strengths = self.addressing.bias.data.view(heads, -1)[:, width]
        strengths.fill_(math.log(slots))

    def init(self) -> MANNState:
        """Return the state before the first input: an empty memory."""
        weight = self.addressing.weight
        # Unequal, so that the least used slots are told apart from the start: else all would hold the same for ever.
        usage = torch.arange(self.slots, dtype=weight.dtype, device=weight.device) * 1e-6
        nowhere = weight.new_zeros(self.heads, self.slots)
        memory, read = weight.new_zeros(self.slots, self.width), weight.new_zeros(self.heads * self.width)
        return MANNState(self.controller.init(), memory, usage, nowhere, nowhere, read)

    def forward(self, x: Float[Tensor, "*n inputs"], state: MANNState) -> tuple[Float[Tensor, "*n outputs"], MANNState]:
        """Read one input, write to the memory, and read from it."""
        before = state.read.expand(*x.shape[:-1], -1)
        hidden, controller = self.controller(torch.cat([x, before], -1), state.controller)
        told = self.addressing(hidden).unflatten(-1, (self.heads, -1))
        key, strength, gate = told.split([self.width, 1, 1], -1)
        key, gate = key.tanh(), gate.sigmoid()
        free = self._least_used(state.usage)
        writing = gate * state.reading + (1 - gate) * free
        memory = (1 - free.sum(-2))[..., None] * state.memory + writing.mT @ key
        reading = (F.softplus(strength) * similarity(key, memory)).softmax(-1)
        read = (reading @ memory).flatten(-2)
        # Usage only decides which slots are free, a choice that has no derivative.
        usage = self.decay * state.usage + (reading + writing).detach().sum(-2)
        return torch.cat([hidden, read], -1), MANNState(controller, memory, usage, reading, writing, read)

    def _least_used(self, usage: Tensor) -> Tensor:
        """Return a one at the least used slot of each head and zeros elsewhere, ``(*n, heads, slots)``."""
        least = usage.topk(self.heads, -1, largest=False).indices
        nowhere = usage.new_zeros(*usage.shape[:-1], self.heads, self.slots)
        return nowhere.scatter(-1, least[..., None], 1.0)
