"""MetaOptNet: the last layer of a task is a support vector machine, differentiated at its optimum."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch
from kshot.learners.encoded import EncodedLearner
from kshot.learners.gradient.svm_dual import multipliers, solver
from kshot.losses import Loss, cross_entropy

__all__ = ["SVM"]


@final
class SVM(EncodedLearner):
    r"""Fit a linear multi-class support vector machine to embeddings, and differentiate through its solution.

    .. math::
        \min_{W, \xi} \tfrac12 \lVert W \rVert^2 + c \sum_i \xi_i \quad \text{subject to} \quad
        w_{y_i}^\top f(x_i) - w_k^\top f(x_i) \ge 1 - [y_i = k] - \xi_i, \qquad
        \hat y(x) = a\, f(x)^\top W

    It is solved in its dual by daqp (Daniel Arnström, Alberto Bemporad, Daniel Axehill 2022, "A dual active-set solver for
    embedded quadratic programming using recursive LDL updates"), one task after another, on the CPU; see
    ``kshot.learners.gradient.svm_dual``. What is meta-learned beside the encoder is a, which makes logits of margins. The
    gradient is exact where the set of support vectors does not change, which is almost everywhere. The solver is made for
    few examples: time grows with the cube of examples times ways.

    Kwonjoon Lee, Subhransu Maji, Avinash Ravichandran, Stefano Soatto 2019, "Meta-learning with differentiable convex
    optimization".

    Args:
        encoder: maps ``(m, *features)`` to embeddings ``(m, d)``.
        loss: what the query predictions are judged by, of labels.
        c: what a violated margin costs, 0.1 as in the paper's code.
        ridge: added to the diagonal of the kernel, 1 as in the paper's code. It makes the solution of the dual unique; a
            support vector machine to the letter is its limit at zero.
        scale: a at the start; its logarithm is learned.

    Raises:
        ValueError: ``c``, ``ridge`` or ``scale`` is not positive, the loss is one of regression, or the encoder
            normalises by the batch.
        ImportError: the solver is not installed.

    >>> learner = SVM(nn.Identity(), ridge=1e-6, c=10.0)
    >>> support = Batch(torch.tensor([[-2.0, 1.0], [2.0, 1.0]]), torch.eye(2))
    >>> learner.predict(learner.adapt(support), torch.tensor([[2.0, 1.0]])).round(decimals=2)
    tensor([[-0.5000,  0.5000]], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self,
        encoder: nn.Module,
        loss: Loss = cross_entropy,
        *,
        c: float = 0.1,
        ridge: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(encoder, loss)
        if min(c, ridge, scale) <= 0:
            raise ValueError(f"SVM expects c, ridge and scale above zero; found {c}, {ridge} and {scale}.")
        if not loss.labels:
            raise ValueError("SVM separates classes and needs a loss of labels; for regression use Ridge.")
        solver()  # said now, where it is missing, and not at the first task
        self.c, self.ridge = c, ridge
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def adapt(self, support: Batch) -> Float[Tensor, "d ways"]:
        """Return the weights of the last layer, ``(d, ways)``."""
        z, y = support
        kernel = z @ z.mT + self.ridge * torch.eye(len(z), dtype=z.dtype, device=z.device)
        weights: Tensor = z.mT @ multipliers(kernel, y, self.c)
        return weights

    def predict(self, state: Float[Tensor, "d ways"], x: Float[Tensor, "q d"]) -> Float[Tensor, "q ways"]:
        """Return logits, ``(q, ways)``."""
        return self.log_scale.exp() * (x @ state)
