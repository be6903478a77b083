"""The control plane's HTTP face, on the wire that clients of the Fireworks API know."""
