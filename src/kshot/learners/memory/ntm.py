"""The Neural Turing Machine's cell: a controller that writes to a memory and reads from it, by content and by place."""

import math
from typing import Literal, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.nets.cells import LSTM, Cell, FeedForward, State
from kshot.validation import check_choice, check_sizes

__all__ = ["NTMCell", "NTMState", "similarity"]

Controller: TypeAlias = Literal["lstm", "feedforward"]
Start: TypeAlias = Literal["constant", "learned"]


class NTMState(NamedTuple):
    """What the cell holds: the controller's state, the memory ``(*n, slots, width)``, where its heads are, what was read.

    ``addresses`` are ``(*n, reads + writes, slots)``, the reading heads first; ``read`` is ``(*n, reads * width)``.
    """

    controller: State
    memory: Tensor
    addresses: Tensor
    read: Tensor


@final
class NTMCell(Cell):
    r"""A controller with heads on a memory.

    From the controller's output each head takes a key k, its strength :math:`\beta`, a gate g, a shift s and a sharpness
    :math:`\gamma`, and moves from where it was:

    .. math::
        w^c &= \mathrm{softmax}_i(\beta \cos(k, M_i)), \quad w^g = g\, w^c + (1 - g)\, w_{t-1} \\
        w_i &\propto (\textstyle\sum_j s_j\, w^g_{i - j})^\gamma, \quad j \in \{-1, 0, 1\}

    Writing heads then erase and add, :math:`M_i \leftarrow M_i \prod (1 - w_i e) + \sum w_i a`, and reading heads read
    :math:`\sum_i w_i M_i`. Alex Graves, Greg Wayne, Ivo Danihelka 2014, "Neural Turing machines". Where the
    heads start is learned, from near the first slot: heads that start everywhere would write the same into every slot for
    ever. The memory starts constant, as Mark Collier, Joeran Beel 2018, "Implementing neural Turing machines", found best
    for copying; where it is to be a table, one that starts with learned slots, all unlike, can be looked up from the first
    input on.

    Args:
        inputs: features of an input.
        hidden: features of the controller's output.
        slots: of the memory.
        width: numbers in a slot.
        reads: reading heads.
        writes: writing heads.
        controller: what moves the heads: an LSTM, or one layer without a memory of its own.
        start: of the memory: the same in every slot, or learned; keys then start with a strength of log(slots).

    Raises:
        ValueError: a size is below one, or there is no such controller or start.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int = 100,
        slots: int = 128,
        width: int = 20,
        reads: int = 1,
        writes: int = 1,
        controller: Controller = "lstm",
        start: Start = "constant",
    ) -> None:
        check_sizes(inputs=inputs, hidden=hidden, slots=slots, width=width, reads=reads, writes=writes)
        check_choice("controller", controller, Controller)
        check_choice("start", start, Start)
        super().__init__(inputs, hidden + reads * width)
        self.slots, self.width, self.reads, self.writes = slots, width, reads, writes
        net = LSTM if controller == "lstm" else FeedForward
        self.controller: Cell = net(inputs + reads * width, hidden)
        self.addressing = nn.Linear(hidden, (reads + writes) * (width + 6))
        # Sharpness starts near one. A head that starts sharp does not feel where else it might go: trained to copy, nets
        # then stay for thousands of steps where the controller holds what it can in its own state.
        told = self.addressing.bias.data.view(reads + writes, -1)
        told[:, -1] = -2.0
        if start == "learned":
            # A slot that matches weighs as much as all others together, as in a MANNCell.
            told[:, width] = math.log(slots)
        self.writing = nn.Linear(hidden, writes * 2 * width)
        first = torch.zeros(reads + writes, slots)
        first[:, 0] = 5.0
        self.first_addresses = nn.Parameter(first)
        self.first_read = nn.Parameter(torch.zeros(reads * width))
        self.first_memory = nn.Parameter(0.3 * torch.randn(slots, width)) if start == "learned" else None

    def init(self) -> NTMState:
        """Return the state before the first input."""
        learned, size = self.first_memory, (self.slots, self.width)
        memory = self.first_read.new_full(size, 1e-6) if learned is None else learned
        return NTMState(self.controller.init(), memory, self.first_addresses.softmax(-1), self.first_read)

    def forward(self, x: Float[Tensor, "*n inputs"], state: NTMState) -> tuple[Float[Tensor, "*n outputs"], NTMState]:
        """Read one input, write to the memory, and read from it."""
        before = state.read.expand(*x.shape[:-1], -1)
        hidden, controller = self.controller(torch.cat([x, before], -1), state.controller)
        addresses = self._addresses(hidden, state)
        reading, writing = torch.split(addresses, [self.reads, self.writes], -2)
        memory = self._written(hidden, state.memory, writing)
        read = (reading @ memory).flatten(-2)
        return torch.cat([hidden, read], -1), NTMState(controller, memory, addresses, read)

    def _addresses(self, hidden: Tensor, state: NTMState) -> Tensor:
        told: Tensor = self.addressing(hidden).unflatten(-1, (self.reads + self.writes, -1))
        key, strength, gate, shift, sharpness = torch.split(told, [self.width, 1, 1, 3, 1], -1)
        content = (F.softplus(strength) * similarity(key.tanh(), state.memory)).softmax(-1)
        gate = gate.sigmoid()
        gated = gate * content + (1 - gate) * state.addresses
        back, stay, on = shift.softmax(-1).chunk(3, -1)
        moved = back * gated.roll(-1, -1) + stay * gated + on * gated.roll(1, -1)
        # The power, normalised, by way of its logarithm, which is finite and has a derivative at zero too.
        addresses: Tensor = ((1 + F.softplus(sharpness)) * (moved + 1e-16).log()).softmax(-1)
        return addresses

    def _written(self, hidden: Tensor, memory: Tensor, addresses: Tensor) -> Tensor:
        erase, add = self.writing(hidden).unflatten(-1, (self.writes, -1)).chunk(2, -1)
        for where, what in zip(addresses.unbind(-2), erase.sigmoid().unbind(-2), strict=True):
            memory = memory * (1 - where[..., None] * what[..., None, :])
        written: Tensor = memory + addresses.mT @ add.tanh()
        return written


def similarity(keys: Float[Tensor, "*#n heads width"], memory: Float[Tensor, "*#n slots width"]) -> Tensor:
    """Return the cosine of each key with each slot, ``(*n, heads, slots)``; with an empty slot it is zero."""
    keys, scale = keys * _inverse_length(keys)[..., None], _inverse_length(memory)
    return keys @ memory.mT * scale[..., None, :]


def _inverse_length(vectors: Tensor) -> Tensor:
    # Bounded by 1000: a slot with next to nothing in it is like no key, and passes no huge gradients on.
    return (vectors.square().sum(-1) + 1e-6).rsqrt()
