"""Meta-reinforcement learning: policies that adapt to a new task in a few trajectories."""
