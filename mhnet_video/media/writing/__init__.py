"""From frames to an output file, and the report of what it kept."""
