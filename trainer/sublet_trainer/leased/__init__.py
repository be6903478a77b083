"""The outside world of a trainer, all of it under one lease."""
