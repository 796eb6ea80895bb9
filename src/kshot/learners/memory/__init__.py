"""Learners that remember: they read the support set into a memory, and look it up."""

from kshot.learners.memory.memory_network import MemoryNetwork as MemoryNetwork
