"""Learn to recognise a character after seeing it once.

You will see what a task is, that meta-training is an ordinary PyTorch loop, and how to tell how good the result is. The
characters are drawn by the library, in invented alphabets, so nothing is downloaded.

    python examples/01_learn_from_one_example.py
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from kshot import Episodes
from kshot.allocator import keep_freed_memory
from kshot.evaluation import compare, evaluate
from kshot.learners.metric import Prototypical
from kshot.nets.conv import Conv4
from kshot.tasks.glyphs import glyphs


def main(steps: int = 100, test_tasks: int = 600) -> None:
    torch.manual_seed(0)

    # A task shows five characters once each, the support set, and asks which of them five other drawings of each are,
    # the query set. Episodes draws as many tasks as we like; they differ in their characters.
    tasks = Episodes(glyphs("train"), ways=5, shots=1, queries=5, length=16 * steps)
    task = tasks[0]
    print(f"one task: support x {tuple(task.support.x.shape)}, y {tuple(task.support.y.shape)}")
    print(f"          query   x {tuple(task.query.x.shape)}, y {tuple(task.query.y.shape)}")

    # The learner embeds pictures by a net, remembers the mean of each class, and answers with the nearest mean. What is
    # learned over many tasks is the net: a sense of which drawings are the same character.
    learner = Prototypical(Conv4(channels=1))
    optimizer = torch.optim.Adam(learner.parameters(), lr=2e-3)
    for step, batch in enumerate(DataLoader(tasks, batch_size=16), start=1):
        optimizer.zero_grad()
        loss = learner.meta_loss(batch)  # adapt to each support set, predict its query set, mean over 16 tasks
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")

    # Judge it on alphabets that it never saw. The same tasks go to a learner that compares raw pixels: what does
    # learning to learn bring beyond the method itself?
    test = Episodes(glyphs("test"), ways=5, shots=1, queries=5, seed=1, length=test_tasks)
    learned = evaluate(learner, test)
    pixels = evaluate(Prototypical(nn.Flatten()), test)
    print(f"Prototypical: {learned.short()} right, 95 % interval over {test_tasks} tasks of unseen alphabets")
    print(f"raw pixels:   {pixels.short()} right")

    # Both answered the very same tasks, so compare them task by task.
    print(f"difference:   {compare(learned, pixels)}")


if __name__ == "__main__":
    keep_freed_memory()  # on Linux, nearly twice as fast on a CPU
    main()
