"""Contrastive pretraining: examples of one class, or two views of one example, are embedded near each other."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.core import Episode, Learner
from kshot.learners.transfer.wrapped import WrappedLearner

__all__ = ["Contrastive"]


@final
class Contrastive(WrappedLearner):
    r"""Train the encoder of a learner by telling each example's own class from the other examples of a task.

    .. math:: -\frac{1}{2n} \sum_i \frac{1}{|P_i|} \sum_{p \in P_i} \log
        \frac{\exp(\cos(h_i, h_p) / \tau)}{\sum_{j \neq i} \exp(\cos(h_i, h_j) / \tau)}

    h are projected embeddings of all examples of a task, support and query, and P_i the others of the class of i. On tasks
    where a class is one example and a distorted copy of it (``kshot.tasks.unsupervised.Instances``) there is one of them,
    no label is needed, and this is NT-Xent of Ting Chen et al. 2020, "A simple framework for contrastive learning of
    visual representations" (SimCLR). On labelled tasks it is Prannay Khosla et al. 2020, "Supervised contrastive
    learning". The more classes a task has, the more there is to tell apart.

    Args:
        learner: how the encoder is to be used on a few examples: ``Prototypical(encoder)``, say. Its encoding alone is
            trained.
        projection: maps embeddings ``(m, d)`` to what is compared, and is thrown away afterwards: a small MLP, say.
        temperature: tau.

    Raises:
        ValueError: the temperature is not positive.

    >>> from kshot.learners.transfer.linear_probe import LinearProbe
    >>> from kshot.tasks.augment import Distortions
    >>> from kshot.tasks.glyphs import glyphs
    >>> from kshot.tasks.unsupervised import Instances
    >>> pairs = Instances(glyphs("val").x, ways=16, augment=Distortions(), augment_support=True)
    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 8))
    >>> Contrastive(LinearProbe(encoder), nn.Linear(8, 4)).meta_loss([pairs[0]]).item() > 0
    True
    """

    def __init__(self, learner: Learner, projection: nn.Module, temperature: float = 0.5) -> None:
        super().__init__(learner)
        if temperature <= 0:
            raise ValueError(f"temperature must be above zero; found {temperature}.")
        self.projection, self.temperature = projection, temperature

    def task_loss(self, task: Episode) -> Tensor:
        """Return the mean loss of all examples that have another of their class."""
        z = F.normalize(self.projection(torch.cat([task.support.x, task.query.x])), dim=1)
        y = torch.cat([task.support.y, task.query.y])
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        scores = (z @ z.mT / self.temperature).masked_fill(itself, -torch.inf)
        alike = (y @ y.mT).masked_fill(itself, 0)
        surprise = scores.logsumexp(1, keepdim=True) - scores.masked_fill(itself, 0)
        partners = alike.sum(1)
        return ((alike * surprise).sum(1) / partners.clamp_min(1)).sum() / (partners > 0).sum().clamp_min(1)
