"""What file formats and streams hold, read without FFmpeg where it passes over things."""
