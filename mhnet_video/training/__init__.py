"""Training data, the growth of networks, and quality metrics."""
