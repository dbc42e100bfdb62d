"""The processor that the CPU engine's kernels are made for."""

import ctypes
import os
import struct
import sys
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The processor that kernels are made for."""

    lanes: int
    """Pixels of a vector."""
    registers: int
    """Vector registers."""
    bfloat16: bool
    """Whether elements are pairs of bfloat16, multiplied in pairs and summed in float32."""
    name: str
    """The instructions, in words."""
    target: str = ""
    """LLVM's name of the processor to compile for; empty for this one."""
    triple: str = ""
    """LLVM's name of another system to compile for; empty for this one."""
    tiles: bool = False
    """Whether products of matrices are made in AMX's tiles; elements are pairs of bfloat16 then."""
    int8: bool = False
    """Whether products may be of elements of four bytes, summed in 32 bits; elements of maps are
    pairs of bfloat16 then."""

    @property
    def group(self) -> int:
        """Channels of an element."""
        return 2 if self.bfloat16 else 1

    @property
    def looks_up(self) -> bool:
        """Whether `Emitter.look_up` is available, which takes AVX2 or AVX-512."""
        return self.lanes in (8, 16)


def host_machine(*, bfloat16: bool = True, tiles: bool = True, int8: bool = True) -> Machine | None:
    """This processor, or None if it has neither AVX2 nor NEON.

    The environment variable `MHNET_CPU_ISA` set to `avx2`, `avx512` or `avx512bf16` leaves newer
    instructions out, to see what the kernels would be on an older processor.

    Args:
        bfloat16: Whether bfloat16 may be used where the processor multiplies it natively.
        tiles: Whether AMX may be used with it.
        int8: Whether VNNI may be used with it, where there is no AMX.
    """
    features = llvm.get_host_cpu_features()
    limit = os.environ.get("MHNET_CPU_ISA", "")
    wide = features.get("avx512f") and features.get("avx512bw") and features.get("avx512vl")
    if wide and limit != "avx2":
        if bfloat16 and features.get("avx512bf16") and limit != "avx512":
            has_tiles = features.get("amx-tile") and features.get("amx-bf16")
            if tiles and has_tiles and limit != "avx512bf16" and _tiles_granted():
                name = "AMX bfloat16"
                return Machine(lanes=16, registers=32, bfloat16=True, name=name, tiles=True)
            has_int8 = int8 and bool(features.get("avx512vnni"))
            name = "AVX-512 bfloat16 and int8" if has_int8 else "AVX-512 bfloat16"
            return Machine(lanes=16, registers=32, bfloat16=True, name=name, int8=has_int8)
        return Machine(lanes=16, registers=32, bfloat16=False, name="AVX-512 float32")
    if features.get("avx2") and features.get("fma"):
        target = "x86-64-v3" if wide else ""
        return Machine(lanes=8, registers=16, bfloat16=False, name="AVX2 float32", target=target)
    if features.get("neon") or features.get("fp-armv8"):
        return Machine(lanes=4, registers=32, bfloat16=False, name="NEON float32")
    return None


@cache
def _tiles_granted() -> bool:
    """Ask Linux to let this process use AMX's tiles, whose state is large; whether it does."""
    if sys.platform != "linux":
        return False
    call, request_permission, tile_data = 158, 0x1023, 18  # arch_prctl on x86-64
    granted = ctypes.CDLL(None, use_errno=True).syscall(call, request_permission, tile_data)
    return bool(granted == 0)


class TileShape(NamedTuple):
    """How a kernel configures AMX's eight tiles: first totals, then weights, then inputs."""

    totals: int
    """Tiles of totals, `[outputs, 16]` float32."""
    weights: int
    """Tiles of weights, `[outputs, pairs]`."""
    outputs: int
    """Rows of a tile of totals or weights."""
    pairs: int
    """Rows of a tile of inputs, `[pairs, 16]`."""

    def settings(self) -> bytes:
        """The operand of LDTILECFG, 64 bytes."""
        columns, rows = [0] * 16, [0] * 16
        for tile in range(8):
            is_weight = 0 <= tile - self.totals < self.weights
            is_input = tile >= self.totals + self.weights
            columns[tile] = 4 * self.pairs if is_weight else 64
            rows[tile] = self.pairs if is_input else self.outputs
        return struct.pack("<BB14x16H16B", 1, 0, *columns, *rows)
