"""Learners that write and read: the support set changes what the network does, without a gradient step."""

from kshot.learners.memory.in_context import InContext
from kshot.learners.memory.mann import MANNCell, MANNState
from kshot.learners.memory.memory_network import MemoryNetwork
from kshot.learners.memory.neural_process import NeuralProcess
from kshot.learners.memory.ntm import NTMCell, NTMState
from kshot.learners.memory.recurrent import Reading, Recurrent
from kshot.learners.memory.snail import SNAIL
from kshot.learners.memory.transducer import Transducer

__all__ = [
    "SNAIL",
    "InContext",
    "MANNCell",
    "MANNState",
    "MemoryNetwork",
    "NTMCell",
    "NTMState",
    "NeuralProcess",
    "Reading",
    "Recurrent",
    "Transducer",
]
