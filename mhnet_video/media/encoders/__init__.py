"""Video encoders: which work here, how they are set up, what they take."""
