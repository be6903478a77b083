"""Twins of the adapters that live in one process and pass the same contract suite."""
