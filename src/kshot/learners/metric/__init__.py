"""Learners that compare: a query belongs with the support examples that it lies close to."""

from kshot.learners.metric.correspondence import Correspondence as Correspondence
from kshot.learners.metric.mahalanobis import Mahalanobis as Mahalanobis
from kshot.learners.metric.matching import FullContext as FullContext
from kshot.learners.metric.matching import Matching as Matching
from kshot.learners.metric.open_set import OpenSet as OpenSet
from kshot.learners.metric.prototypical import Prototypical as Prototypical
from kshot.learners.metric.relation import Relation as Relation
from kshot.learners.metric.siamese import Siamese as Siamese
from kshot.learners.metric.siamese import WeightedL1 as WeightedL1
from kshot.learners.metric.soft_k_means import SoftKMeans as SoftKMeans
