"""The CPU engine: kernels that LLVM compiles for this processor."""
