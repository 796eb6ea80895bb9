"""The learners of every family."""
