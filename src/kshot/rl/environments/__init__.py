"""Distributions of tasks, each simulated for many tasks and trajectories at once."""
