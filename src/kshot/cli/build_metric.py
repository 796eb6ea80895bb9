"""From options to learners that compare."""

from typing import Literal

import torch
from torch import nn

from kshot.cli.features import features_of
from kshot.cli.learner_options import (
    ClassifierOptions,
    Distance,
    MatchingOptions,
    MetricOptions,
    PrototypicalOptions,
    RelationOptions,
    RidgeOptions,
    SiameseOptions,
)
from kshot.core import Learner
from kshot.learners.gradient import Ridge
from kshot.learners.metric import FullContext, Matching, Prototypical, Relation, Siamese, WeightedL1, distances
from kshot.learners.metric.siamese import contrastive, n_pair, triplet, verification
from kshot.learners.transfer import Classifier
from kshot.nets.conv import Conv4
from kshot.nets.norm import BatchStatisticsNorm, group_norm
from kshot.nets.relation import relation_encoder, relation_score

__all__ = ["build_classifier", "build_metric"]

_DISTANCES: dict[Distance, distances.Distance] = {
    "squared-euclidean": distances.squared_euclidean,
    "euclidean": distances.euclidean,
    "manhattan": distances.manhattan,
    "cosine": distances.cosine,
}


def build_metric(options: MetricOptions, picture: torch.Size) -> Learner:
    """Build the metric learner that the options name."""
    channels, pixels, _ = picture
    if isinstance(options, RelationOptions):
        norm = BatchStatisticsNorm if options.batch_statistics else group_norm
        score = relation_score(options.filters, pixels // 4, norm=norm)
        encoder = relation_encoder(channels, options.filters)
        return Relation(encoder, score, transductive=options.batch_statistics)
    encoder = Conv4(channels, options.filters)
    match options:
        case RidgeOptions():
            return Ridge(encoder)
        case PrototypicalOptions():
            return Prototypical(encoder, distance=_DISTANCES[options.distance])
        case MatchingOptions():
            context = FullContext(features_of(encoder, picture)) if options.full_context else None
            temperature: float | Literal["learned"] = "learned" if options.learn_temperature else 1.0
            return Matching(encoder, distance=_DISTANCES[options.distance], temperature=temperature, context=context)
        case SiameseOptions(pair_loss="verification"):
            return Siamese(encoder, WeightedL1(features_of(encoder, picture)), verification)
        case SiameseOptions(pair_loss="n-pair"):
            return Siamese(encoder, distances.squared_euclidean, n_pair)
        case SiameseOptions(pair_loss=name):
            return Siamese(encoder, distances.euclidean, (contrastive if name == "contrastive" else triplet)(1.0))
    raise TypeError(f"no learner for {type(options).__name__}")


def build_classifier(options: ClassifierOptions, picture: torch.Size) -> Classifier:
    """Build a classifier of all training classes, which tells new ones apart by their class means."""
    assert options.classes is not None
    encoder = Conv4(picture[0], options.filters)
    return Classifier(Prototypical(encoder), nn.Linear(features_of(encoder, picture), options.classes))
