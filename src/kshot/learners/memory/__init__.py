"""Learners that remember: a net reads the support set, and what it holds afterwards is what it has learned."""

from kshot.learners.memory.mann import MANNCell, MANNState
from kshot.learners.memory.ntm import NTMCell, NTMState
from kshot.learners.memory.recurrent import Reading, Recurrent
from kshot.learners.memory.transducer import Transducer

__all__ = ["MANNCell", "MANNState", "NTMCell", "NTMState", "Reading", "Recurrent", "Transducer"]
