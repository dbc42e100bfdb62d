"""Training data, Net2Net growth, and quality metrics."""
