"""Learners that take gradient steps: meta-training finds weights from which few steps are enough."""

from kshot.learners.gradient.deep_kernel import DeepKernel as DeepKernel
from kshot.learners.gradient.maml import MAML as MAML
from kshot.learners.gradient.meta_lstm import MetaLSTM as MetaLSTM
from kshot.learners.gradient.proto_maml import ProtoMAML as ProtoMAML
from kshot.learners.gradient.reptile import Reptile as Reptile
from kshot.learners.gradient.ridge import Ridge as Ridge
from kshot.learners.gradient.svm import SVM as SVM
