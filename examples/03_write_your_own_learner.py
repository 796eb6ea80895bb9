"""Write a learner of your own, have its promises checked, and train it.

You will see that a learner is three methods for one task, that batches of tasks come for free, and that `check_learner`
finds the mistake which most often makes results too good: looking at the other test examples.

    python examples/03_write_your_own_learner.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot import Batch, Episodes, Learner
from kshot.allocator import keep_freed_memory
from kshot.contract import ContractError, check_learner
from kshot.evaluation import evaluate
from kshot.nets.conv import Conv4
from kshot.tasks.glyphs import glyphs
from kshot.training import train


class AttentionVote(Learner):
    """Every support example votes for its class, the louder the more it resembles the query (Vinyals et al. 2016)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.sharpness = nn.Parameter(torch.tensor(10.0))

    def encode(self, x: Tensor) -> Tensor:  # pictures (m, channels, height, width) -> (m, d): each for itself
        return F.normalize(self.encoder(x), dim=-1)

    def adapt(self, support: Batch) -> tuple[Tensor, Tensor]:  # x: (n, d) encoded, y: (n, ways) -> the state
        return support.x, support.y

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:  # x: (q, d) encoded -> logits (q, ways)
        examples, labels = state
        votes = self.sharpness * x @ examples.mT  # (q, n): the cosine of each pair
        return (votes[..., None] + labels.log()).logsumexp(1)  # log 0 silences all classes but an example's own


class PeekingVote(AttentionVote):
    """The same, but centred on all queries of a task: one answer then depends on what else is asked."""

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return super().predict(state, F.normalize(x - x.mean(0), dim=-1))


def main(steps: int = 150, test_tasks: int = 300) -> None:
    torch.manual_seed(0)
    tasks = Episodes(glyphs("train"), ways=5, shots=1, queries=5)

    # The contract: a pure adapt, a state of tensors, batch equals loop, an exact meta-gradient, and more. A small net is
    # enough, since it checks the algorithm.
    check_learner(AttentionVote(Conv4(filters=4)), tasks)
    print("AttentionVote keeps every promise")
    try:
        check_learner(PeekingVote(Conv4(filters=4)), tasks)
    except ContractError as error:
        print(f"PeekingVote does not: {error}")

    # From here on it is a learner like any other.
    learner = AttentionVote(Conv4())
    optimizer = torch.optim.Adam(learner.parameters(), lr=2e-3)
    test = Episodes(glyphs("test"), ways=5, shots=1, queries=5, seed=1, length=test_tasks)
    print(f"before training: {evaluate(learner, test).short()} right, 95 % interval over {test_tasks} unseen tasks")
    train(learner, tasks, steps=steps, tasks_per_step=8, optimizer=optimizer)
    print(f"after {steps} steps: {evaluate(learner, test).short()} right")


if __name__ == "__main__":
    keep_freed_memory()  # on Linux, nearly twice as fast on a CPU
    main()
