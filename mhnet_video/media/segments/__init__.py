"""Long files and trips in segments, and the segments joined."""
