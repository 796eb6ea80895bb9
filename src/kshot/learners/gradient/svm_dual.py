"""The dual of the multi-class support vector machine: solved by a quadratic program, differentiated at its optimum.

Almost everywhere the multipliers at their bounds stay there when the kernel changes a little. The others are then the
solution of a linear system, and its derivative is theirs. So the solver tells which multipliers are free, which has no
derivative, and torch solves that system once more, which has all of them.
"""

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["free_multipliers", "multipliers", "solver"]


def multipliers(kernel: Float[Tensor, "n n"], y: Float[Tensor, "n ways"], c: float) -> Float[Tensor, "n ways"]:
    r"""Return the multipliers of Crammer and Singer's support vector machine, ``(n, ways)``.

    .. math::
        \min_A \tfrac12 \operatorname{tr} A^\top K A - \operatorname{tr} Y^\top A \quad
        \text{subject to} \quad A \le c\, Y, \quad A \mathbf 1 = 0

    Unlabelled examples, all-zero rows of ``y``, have multipliers of zero.

    Koby Crammer, Yoram Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines".

    >>> multipliers(torch.eye(2), torch.eye(2), c=0.1)
    tensor([[ 0.1000, -0.1000],
            [-0.1000,  0.1000]])
    """
    (n, ways), bounds = y.shape, c * y.flatten()
    free: Tensor = free_multipliers(kernel.detach(), y, c)
    f = free.flatten()
    one, identity = y.new_ones(ways), torch.eye(n, dtype=y.dtype, device=y.device)
    curvature = torch.kron(kernel, torch.eye(ways, dtype=y.dtype, device=y.device))
    sums = torch.kron(identity, one[:, None])  # of the multipliers of an example, (n * ways, n)
    without = torch.diag(1 - free.amax(1))  # an example whose multipliers are all at their bounds has no such equation
    # Those at their bounds move to the right-hand side; rows of the identity stand in for their equations.
    above = torch.cat([f[:, None] * curvature * f + torch.diag(1 - f), f[:, None] * sums], 1)
    below = torch.cat([(f[:, None] * sums).mT, without], 1)
    held = (1 - f) * bounds
    right = torch.cat([f * (y.flatten() - curvature @ held) + held, -sums.mT @ held])
    solution: Tensor = torch.linalg.solve(torch.cat([above, below]), right)
    return solution[: n * ways].reshape(n, ways)


@torch.library.custom_op("kshot::svm_free_multipliers", mutates_args=())
def free_multipliers(kernel: Tensor, y: Tensor, c: float) -> Tensor:
    """Return one for each multiplier below its bound at the optimum and zero for the others, ``(n, ways)``."""
    labelled = y.sum(1) > 0
    free = torch.zeros_like(y)
    if labelled.any() and kernel.isfinite().all():  # else what is not finite is for the loss to show
        free[labelled] = _free(kernel[labelled][:, labelled], y[labelled], c).to(y)
    return free


@free_multipliers.register_fake
def _(kernel: Tensor, y: Tensor, c: float) -> Tensor:
    del kernel, c  # the shape is that of y
    return torch.empty_like(y)


@free_multipliers.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], kernel: Tensor, y: Tensor, c: float) -> tuple[Tensor, int]:
    """Solve one task after another: all around the solver stays batched."""
    kernels, labels = (
        tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        for tensor, axis in zip((kernel, y), in_dims, strict=False)
    )
    return torch.stack([free_multipliers(*pair, c) for pair in zip(kernels, labels, strict=True)]), 0


def _free(kernel: Tensor, y: Tensor, c: float) -> Tensor:
    (n, ways), size = y.shape, y.numel()
    kernel, y = kernel.double().cpu(), y.double().cpu()
    eye = torch.eye(ways, dtype=y.dtype), torch.eye(n, dtype=y.dtype)
    curvature, sums = torch.kron(kernel, eye[0]), torch.kron(eye[1], torch.ones(1, ways, dtype=y.dtype))
    upper = torch.cat([c * y.flatten(), torch.zeros(n, dtype=y.dtype)])
    lower = torch.cat([torch.full((size,), -1e30, dtype=y.dtype), torch.zeros(n, dtype=y.dtype)])
    kinds = torch.tensor([0] * size + [5] * n, dtype=torch.int32)  # bounds, then equations
    problem = (part.contiguous().numpy() for part in (curvature, -y.flatten(), sums, upper, lower, kinds))
    _, _, status, found = solver().solve(*problem, primal_tol=1e-12, dual_tol=1e-12, iter_limit=100 * size)
    if status != 1:
        raise RuntimeError(
            f"daqp did not solve the dual of the support vector machine (exit flag {status}). Raise its ridge, or scale "
            "the embeddings down."
        )
    return torch.from_numpy(found["lam"][:size] <= 0).reshape(n, ways)


def solver() -> ModuleType:
    """Return the package that solves quadratic programs.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import daqp  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError("SVM solves a quadratic program with daqp: pip install 'kshot[svm]'") from error
    return daqp  # type: ignore[no-any-return]
