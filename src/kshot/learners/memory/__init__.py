"""Learners that write and read: the support set changes what the network does, without a gradient step."""

from kshot.learners.memory.neural_process import NeuralProcess as NeuralProcess
