"""The embedded default: a registry in one SQLite file, shared by the processes of one machine."""
