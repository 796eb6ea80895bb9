"""Learn weights from which one gradient step on five points fits a new sine wave.

You will see a learner that adapts by gradient steps, that `adapt` returns weights and changes nothing else, and what
meta-training is worth: the same net from random weights gets the same points, the same step, and then many more.

    python examples/02_maml_sinusoid.py
"""

import torch

from kshot.evaluation import evaluate
from kshot.learners.gradient import MAML
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.progress import show_progress
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train


def maml(net: MLP, steps: int) -> MAML:
    return MAML(net, lr=0.01, steps=steps, loss=mean_squared_error)


def main(steps: int = 2000, test_tasks: int = 600) -> None:
    torch.manual_seed(0)
    fresh, net = MLP(1, 40, 40, 1), MLP(1, 40, 40, 1)

    # Every task is a sine wave of its own amplitude and phase. Meta-training moves the net's weights to where one
    # gradient step on a few points of a wave predicts the rest of it; the gradient goes through that step.
    learner = maml(net, steps=1)
    waves = Sinusoids(shots=10, queries=10)
    validation = Sinusoids(shots=10, queries=50, seed=1, length=200)
    with show_progress("learning to learn waves") as watch:
        train(learner, waves, steps=steps, tasks_per_step=25, validation=validation, every=500, watch=watch)

    # One new wave by hand. The state is the adapted weights; the net itself stays as it was.
    task = Sinusoids(shots=5, queries=100, seed=2)[1]
    state = learner.adapt(task.support)
    before, after = learner.predict(dict(net.named_parameters()), task.query.x), learner.predict(state, task.query.x)
    print(f"one wave: MSE {(before - task.query.y).square().mean():.2f} before adapt, ", end="")
    print(f"{(after - task.query.y).square().mean():.2f} after one gradient step on {len(task.support.y)} points")

    # Many new waves, five points of each: the mean over waves with its 95 % interval.
    test = Sinusoids(shots=5, queries=100, seed=2, length=test_tasks)
    print(f"MSE over {test_tasks} unseen waves, 95 % interval:")
    for name, start in (("meta-trained", net), ("from scratch", fresh)):
        for count in (0, 1, 10, 100):
            print(f"  {name}, {count:3} gradient steps: {evaluate(maml(start, count), test, 100).short()}")


if __name__ == "__main__":
    main()
