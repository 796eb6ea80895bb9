"""Intents that no method has seen: CLINC150 and BANKING77 by the five splits of ProtAugment, from one question each or five.

Sentence embeddings are those of MiniLM, frozen. On them: the nearest class mean, as it is or centred and normalised by the
mean of training intents, ridge and logistic regression, whose penalties validation intents choose, and the nearest mean
after a linear map that is meta-trained on training intents. The floor is the nearest mean of TF-IDF vectors, whose words and
document frequencies are of all questions, without labels. All answer the same tasks, an equal share of them from each split,
5 queries a class.

Out of scope: all test intents of CLINC150 from five questions each, then 5 others of each beside 1,000 questions that fit
none. AUROC of the best class's score; the interval is over draws.

    python benchmarks/intents.py --data clinc150 --out runs/intents
    python benchmarks/intents.py --data banking77 --out runs/intents
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from kshot.allocator import keep_freed_memory
from kshot.core import Batch, Learner, one_hot
from kshot.embeddings import embed
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners.gradient import Ridge
from kshot.learners.metric import Prototypical
from kshot.learners.metric.distances import cosine
from kshot.learners.transfer import LinearProbe
from kshot.nets.features import CentreAndNormalise
from kshot.nets.sentence_encoder import SentenceEncoder
from kshot.tasks.banking77 import banking77
from kshot.tasks.clinc150 import clinc150, out_of_scope
from kshot.tasks.episodes import Episodes
from kshot.tasks.intents import SPLITS, protaugment_split
from kshot.tasks.labelled import LabelledData, Splits
from kshot.tasks.texts import Texts
from rows import result_row, write_rows
from train_once import train_to_best

PENALTIES = (0.01, 0.1, 1.0, 10.0)
QUERIES, STEPS, DRAWS = 5, 300, 8
FLOOR = "TF-IDF, nearest mean"


def tf_idf(texts: Texts, number: int) -> LabelledData:
    """Return the test intents of a split as vectors of words, which training intents alone do not all hold."""
    position = texts.with_vectors(torch.arange(len(texts.texts), dtype=torch.float64)[:, None])
    test = protaugment_split(position, number).test
    words = TfidfVectorizer(dtype=np.float32).fit(texts.texts)
    return replace(test, x=torch.from_numpy(words.transform(texts.texts[i] for i in test.x[:, 0].long()).toarray()))


def chosen(learners: Sequence[Learner], data: LabelledData, shots: int) -> Learner:
    """Return the learner that does best on validation intents."""
    tasks = Episodes(data, 5, shots, QUERIES, length=100, seed=1)
    return max(learners, key=lambda learner: evaluate(learner, tasks).mean)


def meta_trained(data: Splits, shots: int, out: Path) -> Learner:
    """Meta-train a linear map of the embeddings, which begins as the identity."""
    torch.manual_seed(0)
    features = data.train.x.shape[1]
    linear = nn.Linear(features, features)
    nn.init.eye_(linear.weight)
    linear.weight.data *= 4  # a temperature that lets the softmax see distances of at most 2
    nn.init.zeros_(linear.bias)
    learner = Prototypical(linear)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    tasks = Episodes(data.train, 20, shots, QUERIES, seed=1000)
    validation = Episodes(data.val, 5, shots, QUERIES, length=300, seed=1)
    train_to_best(
        learner, tasks, out, steps=STEPS, tasks_per_step=1, optimizer=optimizer, validation=validation, every=50
    )
    return learner.eval()


def learners_for(data: Splits, shots: int, out: Path) -> dict[str, Learner]:
    """Return all that work on the embeddings of a split."""
    centred = CentreAndNormalise(data.train.x.mean(0))
    return {
        "MiniLM, nearest mean": Prototypical(nn.Identity()),
        "MiniLM, nearest mean, centred and normalised": Prototypical(centred),
        "MiniLM, ridge": chosen([Ridge(nn.Identity(), penalty=p).eval() for p in PENALTIES], data.val, shots),
        "MiniLM, linear probe": chosen([LinearProbe(nn.Identity(), penalty=p) for p in PENALTIES], data.val, shots),
        "MiniLM, meta-trained map, nearest mean": meta_trained(data, shots, out),
    }


def together(results: Sequence[Evaluation]) -> Evaluation:
    """Join what was measured on each split."""
    stamp = {**results[0].stamp, "split": f"test of ProtAugment 1 to {len(SPLITS)}"}
    return Evaluation("accuracy", True, torch.cat([result.scores for result in results]), stamp)


def accuracies(
    texts: Texts, embedded: LabelledData, ways: int | None, shots: int, tasks: int, out: Path
) -> Iterator[tuple[str, Evaluation]]:
    """Yield what each learner scores on the tasks of all splits together."""
    found: dict[str, list[Evaluation]] = {}
    for number in SPLITS:
        data = protaugment_split(embedded, number)
        words = tf_idf(texts, number)
        asked = ways or len(words.classes)
        folder = out / f"{texts.stamp['data']}-{number}-{shots}-shot"
        for name, learner in learners_for(data, shots, folder).items():
            episodes = Episodes(data.test, asked, shots, QUERIES, length=tasks // len(SPLITS), seed=2)
            found.setdefault(name, []).append(evaluate(learner, episodes))
        episodes = Episodes(words, asked, shots, QUERIES, length=tasks // len(SPLITS), seed=2)
        floor = evaluate(Prototypical(nn.Identity(), distance=cosine), episodes, chunk_size=4)
        found.setdefault(FLOOR, []).append(floor)
    for name, results in found.items():
        yield name, together(results)


def auroc(learner: Learner, data: LabelledData, strangers: Tensor, seed: int) -> float:
    """Tell questions of the classes from questions that fit none, by the score of the best class."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.nonzero(data.labels == c)[:, 0] for c in range(len(data.classes))]
    drawn = [rows[torch.randperm(len(rows), generator=generator)[: 2 * QUERIES]] for rows in drawn]
    support, asked = (torch.cat([rows[part] for rows in drawn]) for part in (slice(QUERIES), slice(QUERIES, None)))
    with torch.no_grad():
        y = one_hot(data.labels[support], len(data.classes))
        state = learner.adapt(Batch(learner.encode(data.x[support]), y))
        logits = learner.predict(state, learner.encode(torch.cat([data.x[asked], strangers])))
    score = logits.softmax(1).amax(1) if isinstance(learner, LinearProbe) else logits.amax(1)
    known = torch.arange(len(score)) < len(asked)
    return float(roc_auc_score(known.numpy(), score.numpy()))


def rejection(embedded: LabelledData, strangers: Tensor, out: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each learner."""
    found: dict[str, list[float]] = {}
    for number in SPLITS:
        data = protaugment_split(embedded, number)
        learners = learners_for(data, QUERIES, out / f"clinc150-{number}-{QUERIES}-shot")
        for name, learner in learners.items():
            found.setdefault(name, []).extend(auroc(learner, data.test, strangers, seed) for seed in range(DRAWS))
    for name, values in found.items():
        mean, half_width = statistics.fmean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
        print(f"out of scope, {name}: AUROC {100 * mean:.1f} % ± {100 * half_width:.1f}", flush=True)
        protocol = f"all test intents of ProtAugment 1 to 5, 5 shots; {DRAWS} draws of each split"
        measured = {"metric": "auroc", "value": mean, "ci95": half_width, "episodes": len(values)}
        yield {"data": "clinc150", "protocol": protocol, "learner": name, "ways": 50, "shots": QUERIES, **measured}


def keep(rows: list[dict[str, Any]]) -> None:
    """Write rows down as soon as they are there."""
    write_rows("intents", [{"published": None, "seed": 0, "seconds": 0, **row} for row in rows])


def main() -> None:
    """Embed, judge, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("clinc150", "banking77"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=600, help="5-way tasks; a third as many of all ways")
    options = parser.parse_args()
    keep_freed_memory()
    encoder = SentenceEncoder.minilm()
    texts = clinc150() if options.data == "clinc150" else banking77()
    embedded = texts.embedded(encoder, cache=options.out / "embeddings")
    for ways, tasks in ((5, options.tasks), (None, options.tasks // 3)):
        for shots in (1, 5):
            results = dict(accuracies(texts, embedded, ways, shots, tasks, options.out))
            rows = []
            for name, result in results.items():
                paired = compare(result, results[FLOOR])
                print(f"{options.data}, {ways or 'all'}-way {shots}-shot, {name}: {result.short()}", flush=True)
                above = {"difference": paired.difference, "difference_ci95": paired.ci95}
                rows.append(result_row(result, learner=name, ways=ways or "all", shots=shots, **above))
            keep(rows)
    if options.data == "clinc150":
        strangers = embed(encoder, out_of_scope().test, cache=options.out / "embeddings")
        keep(list(rejection(embedded, strangers, options.out)))


if __name__ == "__main__":
    main()
