"""An update rule that is itself learned: the gates of an LSTM whose cell holds the weights."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.gradient.update_rules import Sizes, Slots, UpdateRule
from kshot.plain_operations import PlainOperations
from kshot.weights import Weights, call

__all__ = ["LearnedRule", "seen"]

_ALL = "all"  # the coordinates of all weights, one after another: they share the rule and nothing else


class LearnedRule(nn.Module):
    r"""Take steps of a size, and forget by an amount, that an LSTM chooses for each coordinate of the weights.

    .. math::
        w_s = f_s w_{s-1} - i_s g_s, \qquad
        f_s = \sigma(a^\top [h_s, w_{s-1}, f_{s-1}] + \alpha), \quad i_s = \sigma(b^\top [h_s, w_{s-1}, i_{s-1}] + \beta)

    :math:`h_s` is the output of an LSTM along the gradients :math:`g` of a coordinate, which sees their size and sign. It
    begins near gradient descent of one step size. The paper's LSTM sees the support loss too, which this one does not.

    Sachin Ravi, Hugo Larochelle 2017, "Optimization as a model for few-shot learning".

    Args:
        hidden: width of the LSTM.
        lr: the step size at the start, in (0, 1).

    Raises:
        ValueError: ``lr`` lies outside (0, 1), the range of a gate.

    >>> learned = LearnedRule(lr=0.1)
    >>> rule, weights = learned.rule(), {"w": torch.ones(2, 3)}
    >>> stepped, _ = rule.update(weights, weights, rule.init(weights), dict(learned.named_parameters()))
    >>> stepped["w"].shape, len(list(learned.parameters()))
    (torch.Size([2, 3]), 8)
    """

    def __init__(self, hidden: int = 20, lr: float = 0.01) -> None:
        super().__init__()
        if not 0 < lr < 1:
            raise ValueError(f"LearnedRule expects lr in (0, 1), since a gate stands for the step size; found {lr}.")
        self.cell = nn.LSTMCell(2, hidden)
        self.forget, self.input = nn.Linear(hidden + 2, 1), nn.Linear(hidden + 2, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.01, 0.01)
            self.forget.bias.fill_(5.0)  # keeps 99.3 % of the weights, the middle of what the paper's code draws
            self.input.bias.fill_(math.log(lr / (1 - lr)))

    def rule(self) -> UpdateRule:
        """Return the rule for an inner loop, whose ``sizes`` are the parameters of this module by name."""
        return UpdateRule(self._init, self._update, linear=False)

    def forward(
        self, gradients: Float[Tensor, " n"], weights: Float[Tensor, " n"], slots: Weights
    ) -> tuple[Float[Tensor, " n"], Weights]:
        """Return new weights, and what is kept: outputs and cells of the LSTM and both gates."""
        hidden, cell = self.cell(seen(gradients), (slots["hidden"], slots["cell"]))
        w = weights[:, None]
        forget = self.forget(torch.cat([hidden, w, slots["forget"]], 1)).sigmoid()
        size = self.input(torch.cat([hidden, w, slots["input"]], 1)).sigmoid()
        stepped = (forget * w)[:, 0] - size[:, 0] * gradients
        return stepped, {"hidden": hidden, "cell": cell, "forget": forget, "input": size}

    def _init(self, weights: Weights) -> Slots:
        flat = _flat(weights)
        widths = {"hidden": self.cell.hidden_size, "cell": self.cell.hidden_size, "forget": 1, "input": 1}
        return {name: {_ALL: flat.new_zeros(len(flat), width)} for name, width in widths.items()}

    def _update(self, gradients: Weights, weights: Weights, slots: Slots, sizes: Sizes) -> tuple[Weights, Slots]:
        kept = {name: slot[_ALL] for name, slot in slots.items()}
        with PlainOperations():  # LSTM cells of torch have no rule for vmap
            flat, kept = call(self, sizes, _flat(gradients), _flat(weights), kept)
        parts = flat.split([weight.numel() for weight in weights.values()])
        stepped = {name: part.reshape(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True)}
        return stepped, {name: {_ALL: slot} for name, slot in kept.items()}


def seen(gradients: Float[Tensor, " n"], p: float = 10.0) -> Float[Tensor, "n 2"]:
    r"""Return size and sign of gradients on a scale that an LSTM can read.

    .. math::
        (\log \lvert g \rvert / p, \operatorname{sign} g) \ \text{where} \ \lvert g \rvert \ge e^{-p}, \qquad
        (-1, e^p g) \ \text{elsewhere}

    Marcin Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent", appendix A.

    >>> seen(torch.tensor([-1.0, 0.0]))
    tensor([[ 0., -1.],
            [-1.,  0.]])
    """
    size = gradients.abs()
    large = size >= math.exp(-p)
    log = torch.where(large, size, 1).log() / p
    return torch.stack([torch.where(large, log, -1), torch.where(large, gradients.sign(), math.exp(p) * gradients)], 1)


def _flat(weights: Weights) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights.values()])
