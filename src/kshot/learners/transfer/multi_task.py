"""Multi-task learning: one net for all known tasks, trained on their support sets together."""

from typing import final

from torch import Tensor, nn

from kshot.core import Batch, Episode, Inputs, Learner
from kshot.losses import Loss, cross_entropy
from kshot.nets.norm import normalises_by_batch

__all__ = ["MultiTask"]


@final
class MultiTask(Learner):
    r"""Fit one net to the support sets of all tasks, and answer their queries.

    .. math:: \min_\theta \frac{1}{T} \sum_t L(f_\theta(x, t), y), \qquad (x, y) \in \text{support}_t

    It does not adapt: it knows the tasks that it was trained on, and those alone. With ``kshot.nets.multi_task`` it has a
    trunk and a head for each task, or is told the task; with any other net it takes all tasks for one. What it learned
    serves a new task by its trunk: ``LinearProbe(net.trunk)`` or ``FineTune(net.trunk, …)``.

    Rich Caruana 1997, "Multitask learning".

    Args:
        net: f, which maps examples to what the loss takes. Tasks of ``kshot.tasks.numbered`` have the task's number
            beside each input.
        loss: what predictions are judged by.

    Raises:
        ValueError: the net has a layer that normalises by the batch.

    >>> from kshot.losses import mean_squared_error
    >>> from kshot.nets.multi_task import TaskHeads
    >>> from kshot.tasks.numbered import NumberedTasks
    >>> from kshot.tasks.sinusoid import Sinusoids
    >>> net = TaskHeads(nn.Linear(1, 8), 8, 1, tasks=4)
    >>> MultiTask(net, mean_squared_error).task_losses([NumberedTasks(Sinusoids(), 4)[3]]).shape
    torch.Size([1])
    """

    fixed_ways = True

    def __init__(self, net: nn.Module, loss: Loss = cross_entropy) -> None:
        super().__init__(loss)
        for name, layer in net.named_modules():
            if normalises_by_batch(layer) or isinstance(layer, nn.modules.batchnorm._BatchNorm):
                raise ValueError(
                    f"layer {name!r} ({type(layer).__name__}) would learn its statistics from queries too, by which the "
                    "net is judged. Use kshot.nets.norm.group_norm."
                )
        self.net = net

    def encode(self, x: Inputs) -> Tensor:
        """Return the predictions, all tasks in one pass."""
        predictions: Tensor = self.net(x)
        return predictions

    def adapt(self, support: Batch) -> tuple[()]:
        """Return nothing, since nothing is adapted."""
        del support  # was learned from in training
        return ()

    def predict(self, state: tuple[()], x: Tensor) -> Tensor:
        """Return the predictions that encoding made."""
        del state
        return x

    def task_loss(self, task: Episode) -> Tensor:
        """Return the loss on the support set, which is what may be learned from."""
        return self.loss(task.support.x, task.support.y)
