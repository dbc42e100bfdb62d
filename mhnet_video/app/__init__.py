"""The page for files: clips are uploaded, restored one after the other, and downloaded."""
