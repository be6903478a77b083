"""How events enter: size, sender and form are checked before any of their words are looked at."""
