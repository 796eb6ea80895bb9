"""The meta-gradient by others: the textbook loop, and three libraries, each as its own example of MAML has it.

All see the same net and the same tasks, have torch's own fused losses, and add the gradient of the mean query loss over
tasks to ``.grad``. Attention runs by plain operations, since torch's fused kernel has no second derivative.

``higher`` and ``parallel-metalearn`` go backwards as their examples do, task by task and through ``vmap``; ``torchopt`` and
the textbook loop go backwards once, through the mean.

    pip install -c constraints.txt -e '.[bench]'
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.core import Episode

Step: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Problem:
    """A net, a meta-batch, and the steps to take on it."""

    net: nn.Module
    tasks: Episode
    lr: float
    steps: int
    classes: bool
    first_order: bool = False

    @property
    def targets(self) -> tuple[Tensor, Tensor]:
        """What torch's own losses take: class numbers, or the targets themselves."""
        support, query = (batch.y.argmax(-1) if self.classes else batch.y for batch in self.tasks)
        return support, query

    @property
    def each(self) -> list[tuple[Tensor, ...]]:
        """Support and query of each task: inputs and targets."""
        y, query_y = self.targets
        return list(zip(self.tasks.support.x, y, self.tasks.query.x, query_y, strict=True))

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y) if self.classes else F.mse_loss(outputs, y)

    def attention(self) -> Any:
        """Return a context in which attention has a second derivative; none where the net has no attention."""
        attends = any(isinstance(layer, nn.MultiheadAttention) for layer in self.net.modules())
        return sdpa_kernel(SDPBackend.MATH) if attends else nullcontext()


def textbook(problem: Problem) -> Step:
    """Return the loop that textbooks and tutorials show: what a ratio of 1 means."""
    start, each = dict(problem.net.named_parameters()), problem.each

    def call(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(problem.net, weights, (x,))  # type: ignore[no-any-return]

    def adapted(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        weights = start
        for _ in range(problem.steps):
            loss = problem.loss(call(weights, x), y)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=not problem.first_order)
            weights = {
                name: weight - problem.lr * gradient
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
        return weights

    def step() -> None:
        with problem.attention():
            losses = [problem.loss(call(adapted(x, y), query_x), query_y) for x, y, query_x, query_y in each]
            torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]

    return step


def with_higher(problem: Problem) -> Step:
    """Return a step by higher (Edward Grefenstette et al. 2019, "Generalized inner loop meta-learning")."""
    import higher

    each, inner = problem.each, torch.optim.SGD(problem.net.parameters(), problem.lr)

    def first_order(gradients: list[Tensor]) -> list[Tensor]:
        return [gradient.detach() for gradient in gradients]

    callback = first_order if problem.first_order else None

    def step() -> None:
        with problem.attention():
            for x, y, query_x, query_y in each:
                with higher.innerloop_ctx(problem.net, inner, copy_initial_weights=False) as (net, optimizer):
                    for _ in range(problem.steps):
                        optimizer.step(problem.loss(net(x), y), grad_callback=callback)
                    (problem.loss(net(query_x), query_y) / len(each)).backward()

    return step


def with_torchopt(problem: Problem) -> Step:
    """Return a step by TorchOpt (Jie Ren et al. 2023, "TorchOpt: an efficient library for differentiable optimization").

    Raises:
        ValueError: first order is asked for.
    """
    import torchopt

    if problem.first_order:
        raise ValueError("MetaSGD has no first order: it records the graph of every gradient")
    net, each = problem.net, problem.each
    optimizer = torchopt.MetaSGD(net, lr=problem.lr)

    def step() -> None:
        start = torchopt.extract_state_dict(net, by="reference")
        unused = torchopt.extract_state_dict(optimizer, by="reference")
        losses = []
        with problem.attention():
            for x, y, query_x, query_y in each:
                for _ in range(problem.steps):
                    optimizer.step(problem.loss(net(x), y))
                losses.append(problem.loss(net(query_x), query_y))
                torchopt.recover_state_dict(net, start)
                torchopt.recover_state_dict(optimizer, unused)
            torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]

    return step


def with_metalearn(problem: Problem) -> Step:
    """Return a step by parallel-metalearn with its vmap backend, all tasks in one chunk."""
    from metalearn.algorithms import MAML
    from metalearn.inner_optimizers import InnerSGD
    from metalearn.loss import CategoricalAccuracy, CrossEntropy
    from metalearn.loss.base import BaseLoss
    from metalearn.model_wrappers import MAML_Model

    class SquaredError(BaseLoss):  # type: ignore[misc]
        def forward(self, out_dict: Any, targets: Any, **_: Any) -> tuple[Tensor, Tensor]:
            loss = F.mse_loss(out_dict["logits"], targets["labels"])
            return loss, loss

    model = MAML_Model(_Plain(problem.net), _Plain(nn.Identity()))
    inner = InnerSGD(
        model.get_fast_weights(), problem.first_order, problem.lr, max_inner_steps=problem.steps, learn_lr=False
    )
    algorithm = MAML(
        model=model,
        optimizer=_Unmoving(problem.net.parameters()),
        inner_optimizer=inner,
        support_loss_fn=CrossEntropy(CategoricalAccuracy()) if problem.classes else SquaredError(),
        inner_steps=problem.steps,
        chunk_size=len(problem.each),
        device=problem.tasks.support.y.device,
    )
    y, query_y = problem.targets
    batch = problem.tasks.support.x, {"labels": y}, problem.tasks.query.x, {"labels": query_y}

    def step() -> None:
        with problem.attention():
            algorithm.step(iter([batch]))

    return step


class _Plain(nn.Module):
    """A net that is told of steps and modes, which it has no use for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class _Unmoving(torch.optim.SGD):
    """An outer optimizer that leaves the weights: what is timed is the meta-gradient."""

    def step(self, closure: Any = None) -> None:
        del closure


RIVALS: dict[str, Callable[[Problem], Step]] = {
    "textbook": textbook,
    "higher": with_higher,
    "torchopt": with_torchopt,
    "parallel-metalearn": with_metalearn,
}
