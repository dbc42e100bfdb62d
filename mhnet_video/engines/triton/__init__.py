"""The GPU engine: Triton kernels on channels-last maps."""
