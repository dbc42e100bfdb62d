"""Frames: their samples, formats and sizes, and what they carry beside."""
