"""What is trained, and the arithmetic of it."""
