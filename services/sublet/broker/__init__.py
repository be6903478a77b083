"""The lease broker's HTTP face: who is calling, and what they said; lending decides the rest."""
