"""Recurrent layers and cells in plain operations, with the signatures of ``torch.lstm``, ``torch.gru_cell`` and so on.

Layers return NotImplemented for packed sequences and LSTMs with projections, which torch's own then handles.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn", "rnn_cell"]

State: TypeAlias = tuple[Tensor, ...]
Cell: TypeAlias = Callable[..., State]  # (x, state, *parameters) -> state, of which the first is the output


def lstm_cell(
    x: Tensor, state: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Stand in for ``torch.lstm_cell``."""
    h, c = state
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None) -> Tensor:
    """Stand in for ``torch.gru_cell``."""
    (xr, xz, xn), (hr, hz, hn) = F.linear(x, w_ih, b_ih).chunk(3, -1), F.linear(h, w_hh, b_hh).chunk(3, -1)
    z, n = (xz + hz).sigmoid(), (xn + (xr + hr).sigmoid() * hn).tanh()
    return n + z * (h - n)


def rnn_cell(
    activation: Callable[[Tensor], Tensor],
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> Tensor:
    """Stand in for ``torch.rnn_tanh_cell`` and ``torch.rnn_relu_cell``."""
    return activation(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh))


def lstm(x: Tensor, state: Any, *rest: Any) -> Any:
    """Stand in for ``torch.lstm``."""
    if isinstance(state, Tensor):  # the sizes of a packed sequence
        return NotImplemented
    return _layers(lstm_cell, x, tuple(state), *rest)


def gru(x: Tensor, h: Tensor, *rest: Any) -> Any:
    """Stand in for ``torch.gru``."""
    return _one_state(gru_cell, x, h, *rest)


def rnn(activation: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, *rest: Any) -> Any:
    """Stand in for ``torch.rnn_tanh`` and ``torch.rnn_relu``."""
    return _one_state(partial(rnn_cell, activation), x, h, *rest)


def _one_state(cell: Callable[..., Tensor], x: Tensor, h: Tensor, *rest: Any) -> Any:
    if isinstance(rest[0], Tensor):  # a packed sequence has its sizes in the place of h
        return NotImplemented
    return _layers(lambda x, state, *parameters: (cell(x, *state, *parameters),), x, (h,), *rest)


def _layers(
    cell: Cell,
    x: Tensor,
    state: State,
    parameters: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Run every layer in its directions; ``state`` holds ``(layers * directions, n, hidden)`` tensors."""
    directions, each = 1 + bidirectional, 4 if has_biases else 2
    if len(parameters) != num_layers * directions * each:  # projections
        return NotImplemented
    blank = () if has_biases else (None, None)
    x = x.transpose(0, 1) if batch_first else x
    last: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            bound = (*parameters[k * each : (k + 1) * each], *blank)
            output, final = _sequence(cell, x, tuple(part[k] for part in state), bound, backwards=direction == 1)
            outputs.append(output)
            last.append(final)
        x = torch.cat(outputs, -1)
        if layer < num_layers - 1:
            x = F.dropout(x, dropout, train)
    return x.transpose(0, 1) if batch_first else x, *map(torch.stack, zip(*last, strict=True))


def _sequence(
    cell: Cell, x: Tensor, state: State, parameters: tuple[Tensor | None, ...], backwards: bool
) -> tuple[Tensor, State]:
    """Run a cell along the first axis of x; outputs are in the order of x."""
    outputs = []
    for one in reversed(x.unbind()) if backwards else x.unbind():
        state = cell(one, state, *parameters)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state
