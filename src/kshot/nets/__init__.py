"""Modules that know nothing of meta-learning."""
