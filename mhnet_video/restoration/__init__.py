"""From decoded frames to restored frames."""
