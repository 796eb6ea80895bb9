"""Teach new classes to a learner with five pictures of each, from a folder of your own.

You will see how to read a folder, why classes rather than pictures are set aside for the test, how to save a learner,
and how to ask it about a single picture. The folder holds one folder of ten or more pictures for each class, and the more
classes the better; without one the script draws some.

    python examples/04_your_own_pictures.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from kshot import Batch, Episodes, LabelledData, one_hot
from kshot.allocator import keep_freed_memory
from kshot.checkpoint import load_learner, save_learner
from kshot.evaluation import evaluate
from kshot.learners.metric import Prototypical
from kshot.nets.conv import Conv4
from kshot.tasks.glyphs import glyphs
from kshot.training import train

SIZE, MODE, SHOTS = 28, "L", 5  # small and grey, for drawings; take 84 and "RGB" for photographs


def draw_folder(folder: Path, classes: int = 60, pictures: int = 12) -> Path:
    """Write a folder such as you may have: FOLDER/CLASS/PICTURE.png."""
    data = glyphs("val")
    for number in range(classes):
        (folder / f"sign{number:02}").mkdir()
        for i, picture in enumerate(data.x[data.labels == number][:pictures]):
            Image.fromarray(picture[0].numpy()).save(folder / f"sign{number:02}" / f"{i}.png")
    return folder


def learn(folder: Path, steps: int, test_tasks: int) -> None:
    data = LabelledData.from_folder(folder, size=SIZE, mode=MODE)
    print(f"{len(data.x)} pictures of {len(data.classes)} classes")

    # Meta-train on some classes and test on the others: at test time every class is new to the learner.
    splits = data.split(val=0.0, test=0.25)
    ways = min(5, len(splits.test.classes))
    learner = Prototypical(Conv4(channels=data.x.shape[1]))
    train(learner, Episodes(splits.train, ways, SHOTS, queries=5), steps=steps, tasks_per_step=8)
    result = evaluate(learner, Episodes(splits.test, ways, SHOTS, queries=5, length=test_tasks))
    print(f"{ways} new classes, {SHOTS} pictures of each: {result.short()} right, {test_tasks} tasks, 95 % interval")

    # What was learned is a file without code in it. Build the same net to load it into.
    save_learner(folder / "learner.safetensors", learner)
    learner = Prototypical(Conv4(channels=data.x.shape[1])).eval()
    load_learner(folder / "learner.safetensors", learner)

    # Now by hand: encode, adapt, predict. A picture is uint8 in the data, and 0 .. 1 for the net.
    names = splits.test.classes[:ways]
    pictures = [splits.test.x[splits.test.labels == way] / 255 for way in range(ways)]
    shown = torch.cat([of_class[:SHOTS] for of_class in pictures])
    labels = one_hot(torch.arange(ways).repeat_interleave(SHOTS), ways)
    with torch.no_grad():
        state = learner.adapt(Batch(learner.encode(shown), labels))
        for name, of_class in zip(names, pictures, strict=True):
            new = of_class[SHOTS : SHOTS + 1]
            chances = learner.predict(state, learner.encode(new)).softmax(-1)[0]
            print(f"a new picture of {name}: {names[chances.argmax()]}, probability {chances.max():.0%}")


def main(folder: str | None = None, steps: int = 100, test_tasks: int = 300) -> None:
    torch.manual_seed(0)
    if folder is not None:
        return learn(Path(folder), steps, test_tasks)
    with tempfile.TemporaryDirectory() as drawn:
        return learn(draw_folder(Path(drawn)), steps, test_tasks)


if __name__ == "__main__":
    keep_freed_memory()  # on Linux, nearly twice as fast on a CPU
    main(*sys.argv[1:2])
