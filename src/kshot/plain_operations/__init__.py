"""Operations of torch that fail inside an inner loop, and the plain ones that stand in for them.

On torch 2.13 a reverse pass through vmap silently gets the second derivatives of fused normalisation wrong, by 2 % to
over 100 % (pytorch/functorch issue 534), and any pass those of fused weight normalisation; fused attention has no second
derivative, and recurrent layers have neither a forward derivative nor a rule for vmap. A user's module calls these through
``torch.nn.functional`` and ``torch``, where a function mode can put the same arithmetic in other operations.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from kshot.plain_operations.convolution import conv2d
from kshot.plain_operations.normalisation import (
    batch_norm,
    instance_norm,
    layer_norm,
    native_layer_norm,
    torch_layer_norm,
    weight_norm,
    weights_first,
)
from kshot.plain_operations.recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from kshot.weights import one_thread

__all__ = ["PlainOperations"]


class PlainOperations(TorchFunctionMode):
    """While entered, torch's functions that fail inside an inner loop are computed by plain operations.

    Args:
        twice: a reverse pass will go through a reverse pass, so that convolutions need their quick second derivative.

    >>> x = torch.randn(2, 3)
    >>> with PlainOperations():
    ...     y = torch.nn.LayerNorm(3)(x)
    >>> y.allclose(torch.nn.LayerNorm(3)(x), atol=1e-6)
    True
    """

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self._stand_ins = _STAND_INS | {F.conv2d: conv2d} if twice else _STAND_INS
        self._differentiates = torch.is_grad_enabled()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the plain operation where there is one and it covers these arguments, else torch's own."""
        del types
        if self._differentiates and not torch.is_grad_enabled():
            # Forward derivatives pass through a block of no_grad() in a model, where reverse ones take all for constants.
            with _set_fwd_grad_enabled(False):
                return self._call(function, args, kwargs or {})
        return self._call(function, args, kwargs or {})

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stand_in = self._stand_ins.get(function)
        if stand_in is not None and (result := stand_in(*args, **kwargs)) is not NotImplemented:
            return result
        if function in _ATTENTION:
            with one_thread(), sdpa_kernel(SDPBackend.MATH):  # which kernels may run is told to all threads
                return function(*args, **kwargs)
        return function(*args, **kwargs)


_STAND_INS: dict[Any, Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    torch.layer_norm: torch_layer_norm,
    torch.native_layer_norm: native_layer_norm,
    torch.batch_norm: weights_first(batch_norm),
    torch.instance_norm: weights_first(instance_norm),
    torch._weight_norm: weight_norm,
    torch.lstm: lstm,
    torch.gru: gru,
    torch.rnn_tanh: lambda *args: rnn(torch.tanh, *args),
    torch.rnn_relu: lambda *args: rnn(torch.relu, *args),
    torch.lstm_cell: lstm_cell,
    torch.gru_cell: gru_cell,
    torch.rnn_tanh_cell: lambda *args: rnn_cell(torch.tanh, *args),
    torch.rnn_relu_cell: lambda *args: rnn_cell(torch.relu, *args),
}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
