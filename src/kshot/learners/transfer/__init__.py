"""What meta-learning must beat: an encoder trained on other classes or tasks, then used as it is or trained further."""

from kshot.learners.transfer.aggregated_gradient import AggregatedGradient as AggregatedGradient
from kshot.learners.transfer.classifier import Classifier as Classifier
from kshot.learners.transfer.contrastive import Contrastive as Contrastive
from kshot.learners.transfer.fine_tune import FineTune as FineTune
from kshot.learners.transfer.linear_probe import LinearProbe as LinearProbe
from kshot.learners.transfer.multi_task import MultiTask as MultiTask
