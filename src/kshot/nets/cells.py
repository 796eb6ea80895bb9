"""Recurrent cells that read one input at a time, and the loop that reads many."""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.nets.steps import Steps
from kshot.plain_operations.recurrent import lstm_cell
from kshot.validation import check_sizes

__all__ = ["LSTM", "Cell", "FeedForward", "State", "run"]

State: TypeAlias = Any  # a pytree of tensors


class Cell(nn.Module, ABC):
    """A net that turns an input and its state into an output and the next state; abstract.

    It is written for any leading axes: a state without them may meet inputs that have them, and is then shared.

    Args:
        inputs: features of an input.
        outputs: features of an output.

    Raises:
        ValueError: a size is below one.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        check_sizes(inputs=inputs, outputs=outputs)
        super().__init__()
        self.inputs, self.outputs = inputs, outputs

    @abstractmethod
    def init(self) -> State:
        """Return the state before the first input, without leading axes: a pytree of tensors."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "*n inputs"], state: State) -> tuple[Float[Tensor, "*n outputs"], State]:
        """Read one input."""


def run(cell: Cell, inputs: Float[Tensor, "n inputs"], state: State) -> tuple[Float[Tensor, "n outputs"], State]:
    """Read inputs one after the other; return the outputs and the last state.

    Raises:
        ValueError: inputs have another number of features than the cell was built for.

    >>> outputs, state = run(LSTM(3, 8), torch.randn(5, 3), LSTM(3, 8).init())
    >>> outputs.shape
    torch.Size([5, 8])
    """
    if inputs.shape[-1] != cell.inputs:
        raise ValueError(
            f"this {type(cell).__name__} was built for inputs={cell.inputs}; found {inputs.shape[-1]} features. A Recurrent "
            "gives it those of an encoded example and of a label, a Transducer those of x."
        )
    if (compiled := Steps.run(cell, inputs, state)) is not None:
        return compiled
    outputs = [inputs.new_empty(0, cell.outputs)]
    for x in inputs:
        output, state = cell(x, state)
        outputs.append(output[None])
    return torch.cat(outputs), state


@final
class LSTM(Cell):
    r"""Long short-term memory, in one layer or several on top of each other, whose first state is learned.

    .. math::
        i, f, o = \sigma(W [x, h] + b), \quad g = \tanh(W_g [x, h] + b_g), \quad c' = f c + i g, \quad h' = o \tanh c'

    Sepp Hochreiter, Jürgen Schmidhuber 1997, "Long short-term memory", with the forget gate of Felix Gers et al. 2000,
    "Learning to forget", whose bias starts at one.

    Args:
        inputs: features of an input.
        outputs: hidden features of each layer, the features of an output.
        layers: how many; each but the first reads the one below.

    Raises:
        ValueError: a size is below one.
    """

    def __init__(self, inputs: int, outputs: int, layers: int = 1) -> None:
        check_sizes(layers=layers)
        super().__init__(inputs, outputs)
        sizes = [inputs] + [outputs] * (layers - 1)
        self.layers = nn.ModuleList(nn.LSTMCell(size, outputs) for size in sizes)
        for name, bias in self.layers.named_parameters():
            if name.endswith("bias_ih"):
                nn.init.ones_(bias.data[outputs : 2 * outputs])
        self.first = nn.Parameter(torch.zeros(2, layers, outputs))

    def init(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return the hidden and cell state of each layer."""
        return tuple(zip(self.first[0].tanh(), self.first[1], strict=True))

    def forward(
        self, x: Float[Tensor, "*n inputs"], state: tuple[tuple[Tensor, Tensor], ...]
    ) -> tuple[Float[Tensor, "*n outputs"], tuple[tuple[Tensor, Tensor], ...]]:
        """Read one input."""
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            assert isinstance(layer, nn.LSTMCell)
            x, c = lstm_cell(x, before, layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh)
            after.append((x, c))
        return x, tuple(after)


@final
class FeedForward(Cell):
    """One layer that remembers nothing: ``tanh(W x + b)``.

    Args:
        inputs: features of an input.
        outputs: features of an output.

    Raises:
        ValueError: a size is below one.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.layer = nn.Linear(inputs, outputs)

    def init(self) -> tuple[()]:
        """Return nothing."""
        return ()

    def forward(self, x: Float[Tensor, "*n inputs"], state: tuple[()]) -> tuple[Float[Tensor, "*n outputs"], tuple[()]]:
        """Read one input."""
        return self.layer(x).tanh(), state
