"""Fine-tuning on the tasks of ``intents.py``: the last layer alone, or with it all six layers of MiniLM.

The last layer starts from the class means. Ten steps of Adam on the whole support set where the layers of the encoder
move, 50 of momentum where the last layer does alone; the vectors of words stay. Validation intents of the first split choose
the step size. All layers take seconds a task, and so answer the first of the tasks only; the difference to the nearest mean
is on the same ones.

    python benchmarks/intents_tuned.py --data clinc150 --out runs/intents
    python benchmarks/intents_tuned.py --data banking77 --out runs/intents
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from intents import QUERIES, keep, together
from kshot.allocator import keep_freed_memory
from kshot.core import Learner
from kshot.evaluation import Evaluation, compare, evaluate, in_eval_mode, stamp_of
from kshot.learners.gradient.update_rules import adam
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import FineTune
from kshot.nets.sentence_encoder import SentenceEncoder
from kshot.tasks.banking77 import banking77
from kshot.tasks.clinc150 import clinc150
from kshot.tasks.episodes import Episodes
from kshot.tasks.intents import SPLITS, protaugment_split
from kshot.tasks.labelled import LabelledData
from kshot.tasks.texts import Texts
from rows import result_row

HEAD_RATES, LAYER_RATES = (0.03, 0.3, 3.0), (3e-5, 1e-4, 2e-4)
TASKS = {(5, 1): 100, (5, 5): 50, (None, 1): 20, (None, 5): 10}  # for all layers
CHOICE = 10
HEAD, LAYERS = "MiniLM, head fine-tuned", "MiniLM, all layers fine-tuned"


class Embedded(nn.Module):
    """The embeddings of texts that are told by their positions, each padded to the longest of those asked for."""

    def __init__(self, encoder: SentenceEncoder, texts: Texts) -> None:
        super().__init__()
        self.encoder, self.texts = encoder, texts.texts

    def forward(self, positions: Tensor) -> Tensor:
        embeddings: Tensor = self.encoder(self.encoder.tokenize([self.texts[i] for i in positions[:, 0].long()]))
        return embeddings


def one_by_one(learner: Learner, tasks: Episodes) -> Evaluation:
    """Judge without vmap, under which no text can be looked up."""
    scores = []
    with in_eval_mode(learner):
        for support, query in map(tasks.__getitem__, range(len(tasks))):
            weights = learner.adapt(support)
            with torch.no_grad():
                scores.append(learner.loss.metric(learner.predict(weights, query.x), query.y).double())
    return Evaluation("accuracy", True, torch.stack(scores), stamp_of(learner, tasks))


def judged(learner: Learner, tasks: Episodes) -> Evaluation:
    return one_by_one(learner, tasks) if isinstance(learner, FineTune) and learner.rates else evaluate(learner, tasks)


def over_splits(
    learner: Learner, data: LabelledData, ways: int | None, shots: int, number: int, name: str
) -> Evaluation:
    """Judge on the first tasks of each split, which are those of ``intents.py``."""
    results = []
    for split in track(SPLITS, f"{name}, {ways or 'all'}-way {shots}-shot", console=Console(stderr=True)):
        test = protaugment_split(data, split).test
        tasks = Episodes(test, ways or len(test.classes), shots, QUERIES, length=number // len(SPLITS), seed=2)
        results.append(judged(learner, tasks))
    return together(results)


def chosen(learners: Sequence[Learner], data: LabelledData, shots: int, number: int) -> Learner:
    """Return the learner that does best on validation intents of the first split."""
    validation = protaugment_split(data, 1).val
    tasks = Episodes(validation, 5, shots, QUERIES, length=number, seed=1)
    return max(learners, key=lambda learner: judged(learner, tasks).mean)


def main() -> None:
    """Embed, tune, judge, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("clinc150", "banking77"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder of intents.py, which has the embeddings")
    options = parser.parse_args()
    keep_freed_memory()
    texts = clinc150() if options.data == "clinc150" else banking77()
    embedded = texts.embedded(SentenceEncoder.minilm(), cache=options.out / "embeddings")
    positions = texts.with_vectors(torch.arange(len(texts.texts), dtype=torch.float32)[:, None])
    encoder = SentenceEncoder.minilm(trainable=True)
    encoder.model.get_submodule("embeddings").requires_grad_(False)
    head = [FineTune(nn.Identity(), rate, 50, "head", head="mean") for rate in HEAD_RATES]
    body = Embedded(encoder, texts)
    layers = [FineTune(body, rate, 10, "all", head="mean", rule=adam()) for rate in LAYER_RATES]
    for shots in (1, 5):
        best = {HEAD: chosen(head, embedded, shots, 100), LAYERS: chosen(layers, positions, shots, CHOICE)}
        for ways in (5, None):
            for name, learner in best.items():
                data, number = (positions, TASKS[ways, shots]) if name == LAYERS else (embedded, 600 if ways else 200)
                began = time.perf_counter()
                result = over_splits(learner, data, ways, shots, number, name)
                seconds = (time.perf_counter() - began) / number
                plain = over_splits(Prototypical(nn.Identity()), embedded, ways, shots, number, "nearest mean")
                paired = compare(result, plain)
                print(
                    f"{options.data}, {ways or 'all'}-way {shots}-shot, {name}: {result.short()}; {paired}", flush=True
                )
                told = {"difference_to": "MiniLM, nearest mean", "difference": paired.difference}
                told |= {"difference_ci95": paired.ci95, "seconds_per_task": seconds, "lr": learner.lr}
                keep([result_row(result, learner=name, ways=ways or "all", shots=shots, **told)])


if __name__ == "__main__":
    main()
