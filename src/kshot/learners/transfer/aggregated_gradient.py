"""One gradient from those of many tasks that pull in different directions, by TorchJD."""

from typing import TYPE_CHECKING

from torch import Tensor

from kshot.core import Learner, Tasks

if TYPE_CHECKING:
    from torchjd.aggregation import Aggregator

__all__ = ["AggregatedGradient"]


class AggregatedGradient:
    r"""Adds to ``.grad`` an aggregation of the gradients of the tasks of a meta-batch, where a mean is usual.

    .. math:: g = A(J), \qquad J_{t} = \nabla_\theta L_t

    Of a mean a task with a large gradient may make another task worse; UPGrad, for one, first projects each task's
    gradient onto the directions that make none worse, to first order. It stands where ``kshot.meta_gradient`` stands
    otherwise: ``train(..., gradient=AggregatedGradient(learner, UPGrad()))``.

    Pierre Quinton, Valérian Rey 2024, "Jacobian descent for multi-objective optimization".

    Args:
        learner: any learner, of known tasks or meta-trained: its ``task_losses`` are aggregated.
        aggregator: of ``torchjd.aggregation``: UPGrad, MGDA, PCGrad, CAGrad and others.
        chunk_size: how many tasks' gradients are taken at a time; one by default, which works for every learner. More
            are faster where vmap knows all that the backward pass does.

    Raises:
        ImportError: torchjd is missing.
        ValueError: a task's loss reaches no parameter.

    >>> import torch
    >>> from torchjd.aggregation import MGDA
    >>> from kshot.learners.transfer.multi_task import MultiTask
    >>> from kshot.losses import mean_squared_error
    >>> from kshot.tasks.sinusoid import Sinusoids
    >>> learner = MultiTask(torch.nn.Linear(1, 1), mean_squared_error)
    >>> gradient = AggregatedGradient(learner, MGDA())
    >>> gradient([Sinusoids()[i] for i in range(3)]).shape, learner.net.weight.grad.shape
    (torch.Size([]), torch.Size([1, 1]))
    """

    def __init__(self, learner: Learner, aggregator: "Aggregator", chunk_size: int = 1) -> None:
        try:
            from torchjd import autojac
        except ImportError as error:
            raise ImportError("AggregatedGradient needs torchjd: pip install 'kshot[multitask]'") from error
        self._autojac = autojac
        self.learner, self.aggregator, self.chunk_size = learner, aggregator, chunk_size

    def __call__(self, tasks: Tasks) -> Tensor:
        """Add to ``.grad`` and return the mean loss over tasks, detached."""
        losses = self.learner.task_losses(tasks)
        if not losses.requires_grad:
            raise ValueError("the losses reach no parameter that requires a gradient; there is nothing to aggregate.")
        self._autojac.backward(losses, parallel_chunk_size=self.chunk_size)
        reached = [parameter for parameter in self.learner.parameters() if getattr(parameter, "jac", None) is not None]
        self._autojac.jac_to_grad(reached, self.aggregator)
        return losses.detach().mean()
