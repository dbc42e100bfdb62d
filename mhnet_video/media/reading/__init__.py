"""From a file, a stream or a pipe to frames, across what is damaged."""
