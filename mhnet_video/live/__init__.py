"""Live sources: capture, restoration at the rate of the source, and outputs."""
