"""Base models that sublet makes itself, and how a folder of one is known again."""
