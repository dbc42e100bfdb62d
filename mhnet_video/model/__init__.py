"""The network, its weights, and the windows of frames that it takes."""
