"""Video files and image sequences: decoding, encoding, and what is kept beside the frames."""
