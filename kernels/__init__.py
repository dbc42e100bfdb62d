"""Fused operations of the network: one public function each.

ops.py defines the arguments and results of each function, reference.py implements it in plain
PyTorch, and each *_kernel.py in Triton. map_ops.py and map_reference.py are the same
for the channels-last maps of the GPU engine, motion_ops.py and motion_reference.py for the motion
between frames.

llvm_*.py are the kernels of the CPU engine: llvm_operations.py has the table of LLVM's operations,
llvm_values.py the typed values that they make, llvm_ir.py the emitter of kernels, llvm_compiler.py
the compiler, llvm_cache.py what it made before, and the others the kernels.
"""

if __name__ != "mhnet_video.kernels":
    raise ImportError("import mhnet_video.kernels, not kernels")

from mhnet_video.kernels.ops import gate_pool, layer_norm_2d, scaled_residual

__all__ = ["gate_pool", "layer_norm_2d", "scaled_residual"]
