"""What runs the network: PyTorch, LLVM on a CPU or Triton on a GPU."""
