"""What is handed over, and what is told meanwhile."""
