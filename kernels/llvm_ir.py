"""LLVM IR as text: a small emitter with vectors and loops, and the compiler behind it.

Every map is made of 32-bit elements, one for each pixel: a float32 channel, or where the processor
multiplies pairs of bfloat16, two neighbouring channels. Kernels are written once for both.
"""

import ctypes
import math
import os
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm

from mhnet_video.kernels.llvm_run import run_program


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the kernels are made for."""

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
    tiles: bool = False
    """Whether products of matrices are made in AMX's tiles; elements are pairs of bfloat16 then."""

    @property
    def group(self) -> int:
        """Channels of an element."""
        return 2 if self.bfloat16 else 1

    @property
    def looks_up(self) -> bool:
        """Whether `Emitter.look_up` is to be had, which takes AVX2 or AVX-512."""
        return self.lanes in (8, 16)


def host_machine(*, bfloat16: bool = True, tiles: bool = True) -> Machine | None:
    """This processor, or None if it has neither AVX2 nor NEON.

    The environment variable `MHNET_CPU_ISA` set to `avx2`, `avx512` or `avx512bf16` leaves newer
    instructions out, to see what the kernels would be on an older processor.

    Args:
        bfloat16: Whether bfloat16 may be used where the processor multiplies it natively.
        tiles: Whether AMX may be used with it.
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
            return Machine(lanes=16, registers=32, bfloat16=True, name="AVX-512 bfloat16")
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
    """How a kernel sets AMX's eight tiles up: first totals, then weights, then inputs."""

    totals: int
    """Tiles of totals, `[outputs, 16]` float32."""
    weights: int
    """Tiles of weights, `[outputs, pairs]`."""
    outputs: int
    pairs: int
    """Rows of a tile of inputs, `[pairs, 16]`."""

    def settings(self) -> bytes:
        """What the processor is given."""
        columns, rows = [0] * 16, [0] * 16
        for tile in range(8):
            is_weight = 0 <= tile - self.totals < self.weights
            is_input = tile >= self.totals + self.weights
            columns[tile] = 4 * self.pairs if is_weight else 64
            rows[tile] = self.pairs if is_input else self.outputs
        return struct.pack("<BB14x16H16B", 1, 0, *columns, *rows)


class Emitter:
    """Writes one function.

    Values are the names of LLVM registers, or constants; `float` vectors have type `vector`,
    vectors of elements type `elements`.
    """

    def __init__(self, machine: Machine, name: str, arguments: Sequence[tuple[str, str]]) -> None:
        self.machine = machine
        self.name = name
        self.arguments = tuple(arguments)
        self.vector = f"<{machine.lanes} x float>"
        self.elements = f"<{machine.lanes} x i32>"
        self._lines: list[str] = []
        self._allocas: list[str] = []
        self._count = 0
        self._block = "entry"
        self._declarations: set[str] = set()
        self._known: dict[str, str] = {}
        self.shape: TileShape | None = None
        """How the tiles are set up; None if none are used."""
        self._rooms: dict[str, tuple[int, str]] = {}

    # -- plumbing

    def op(self, text: str) -> str:
        """Append an instruction that has a value."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"{name} = {text}")
        return name

    def _pure(self, text: str) -> str:
        """Append an instruction whose value depends on nothing else, unless this block has it."""
        if text not in self._known:
            self._known[text] = self.op(text)
        return self._known[text]

    def do(self, text: str) -> None:
        """Append an instruction without a value."""
        self._lines.append(text)

    def call(self, returned: str, function: str, arguments: Sequence[tuple[str, str]]) -> str:
        """Call an intrinsic."""
        self._declarations.add(
            f"declare {returned} @{function}({', '.join(kind for kind, _ in arguments)})"
        )
        given = ", ".join(f"{kind} {value}" for kind, value in arguments)
        return self.op(f"call {returned} @{function}({given})")

    def call_for_effect(self, function: str, arguments: Sequence[tuple[str, str]]) -> None:
        """Call an intrinsic that has no value; its 8-bit arguments are constants."""
        kinds = ", ".join(f"{kind} immarg" if kind == "i8" else kind for kind, _ in arguments)
        self._declarations.add(f"declare void @{function}({kinds})")
        given = ", ".join(f"{kind} {value}" for kind, value in arguments)
        self.do(f"call void @{function}({given})")

    def label(self, hint: str) -> str:
        """A new block's name."""
        self._count += 1
        return f"{hint}{self._count}"

    def begin(self, label: str) -> None:
        """Begin a block."""
        self._lines.append(f"{label}:")
        self._block = label
        self._known = {}

    def loop(
        self,
        start: str | int,
        stop: str | int,
        step: str | int,
        carried: Sequence[tuple[str, str]],
        body: Callable[[str, list[str]], Sequence[str]],
    ) -> list[str]:
        """Repeat for an index, carrying values.

        Args:
            start: First index.
            stop: End of the indices, excluded.
            step: Between indices.
            carried: Type and first value of what is carried.
            body: From the index and the carried values to the new carried values.

        Returns:
            The carried values at the end.
        """
        before, head, inside, after = (
            self._block,
            self.label("head"),
            self.label("body"),
            self.label("done"),
        )
        self.do(f"br label %{head}")
        self.begin(head)
        place = len(self._lines)
        index = f"%i{head}"
        names = [f"%c{head}_{number}" for number in range(len(carried))]
        test = self.op(f"icmp slt i64 {index}, {stop}")
        self.do(f"br i1 {test}, label %{inside}, label %{after}")
        self.begin(inside)
        results = body(index, names)
        following = self.op(f"add nsw i64 {index}, {step}")
        last = self._block
        self.do(f"br label %{head}")
        self.begin(after)
        phis = [f"{index} = phi i64 [{start}, %{before}], [{following}, %{last}]"]
        for name, (kind, first), result in zip(names, carried, results, strict=True):
            phis.append(f"{name} = phi {kind} [{first}, %{before}], [{result}, %{last}]")
        self._lines[place:place] = phis
        return names

    def when(self, condition: str, body: Callable[[], None]) -> None:
        """Do something if the condition holds."""
        inside, after = self.label("then"), self.label("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self.begin(inside)
        body()
        self.do(f"br label %{after}")
        self.begin(after)

    def either(
        self,
        condition: str,
        kind: str,
        then: Callable[[], Sequence[str]],
        otherwise: Callable[[], Sequence[str]],
    ) -> list[str]:
        """Values of one kind that are made in one way if the condition holds, else in another."""
        inside, outside, after = self.label("then"), self.label("else"), self.label("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{outside}")
        ways = []
        for label, body in ((inside, then), (outside, otherwise)):
            self.begin(label)
            values = body()
            ways.append([(value, self._block) for value in values])
            self.do(f"br label %{after}")
        self.begin(after)
        return [
            self.op(f"phi {kind} [{a}, %{a_from}], [{b}, %{b_from}]")
            for (a, a_from), (b, b_from) in zip(*ways, strict=True)
        ]

    def store_when(self, condition: str, value: str, pointer: str) -> None:
        """Store a vector of elements if the condition holds."""
        self.when(condition, lambda: self.store_elements(value, pointer))

    # -- integers and addresses

    def add(self, a: str | int, b: str | int) -> str:
        """Sum of two integers."""
        if str(a).isdigit() and str(b).isdigit():
            return str(int(a) + int(b))
        if str(b) == "0" or str(a) == "0":
            return str(a if str(b) == "0" else b)
        return self._pure(f"add nsw i64 {a}, {b}")

    def mul(self, a: str | int, b: str | int) -> str:
        """Product of two integers."""
        if str(a).isdigit() and str(b).isdigit():
            return str(int(a) * int(b))
        if str(a) == "1" or str(b) == "1":
            return str(a if str(b) == "1" else b)
        return self._pure(f"mul nsw i64 {a}, {b}")

    def at(self, pointer: str, offset: str | int) -> str:
        """Address of the 32-bit element at an offset."""
        if str(offset) == "0":
            return pointer
        return self._pure(f"getelementptr i32, ptr {pointer}, i64 {offset}")

    def scratch(self, elements: int) -> str:
        """Room for 32-bit elements, for as long as the function runs."""
        self._count += 1
        name = f"%s{self._count}"
        self._allocas.append(f"{name} = alloca [{elements} x i32], align 64")
        return name

    def room(self, purpose: str, elements: int) -> str:
        """Scratch that every use for this purpose shares; the first one says how much there is."""
        if purpose not in self._rooms:
            self._rooms[purpose] = elements, self.scratch(elements)
        if elements > self._rooms[purpose][0]:
            raise ValueError(f"{self.name} has {self._rooms[purpose][0]} elements for {purpose}")
        return self._rooms[purpose][1]

    # -- vectors

    def load(self, pointer: str) -> str:
        """A vector of float32."""
        return self.op(f"load {self.vector}, ptr {pointer}, align 4")

    def store(self, value: str, pointer: str) -> None:
        """Store a vector of float32."""
        self.do(f"store {self.vector} {value}, ptr {pointer}, align 4")

    def load_elements(self, pointer: str) -> str:
        """A vector of elements."""
        return self.op(f"load {self.elements}, ptr {pointer}, align 4")

    def store_elements(self, value: str, pointer: str) -> None:
        """Store a vector of elements."""
        self.do(f"store {self.elements} {value}, ptr {pointer}, align 4")

    def splat(self, value: str, kind: str = "float") -> str:
        """A scalar in all lanes."""
        lanes = self.machine.lanes
        one = self.op(f"insertelement <{lanes} x {kind}> poison, {kind} {value}, i32 0")
        return self.op(
            f"shufflevector <{lanes} x {kind}> {one}, <{lanes} x {kind}> poison, "
            f"<{lanes} x i32> zeroinitializer"
        )

    def broadcast(self, pointer: str) -> str:
        """One float32 in all lanes."""
        return self.splat(self.op(f"load float, ptr {pointer}, align 4"))

    def broadcast_element(self, pointer: str) -> str:
        """One element in all lanes."""
        return self.splat(self.op(f"load i32, ptr {pointer}, align 4"), "i32")

    def gather(self, pointer: str, index: str) -> str:
        """Float32 from the places that a vector of 32-bit integers names."""
        lanes, v = self.machine.lanes, self.vector
        name = f"llvm.masked.gather.v{lanes}f32.v{lanes}p0"
        kinds = f"<{lanes} x ptr>, i32, <{lanes} x i1>, {v}"
        self._declarations.add(f"declare {v} @{name}({kinds})")
        places = self.op(f"getelementptr float, ptr {pointer}, {self.elements} {index}")
        every = "<" + ", ".join(["i1 true"] * lanes) + ">"
        given = f"<{lanes} x ptr> {places}, i32 4, <{lanes} x i1> {every}, {v} poison"
        return self.op(f"call {v} @{name}({given})")

    def look_up(self, low: str, high: str, index: str) -> str:
        """Lanes of two vectors, by a vector of their numbers, 0 to twice the lanes less one."""
        v, i = self.vector, self.elements
        if self.machine.lanes == 16:
            given = [(v, low), (i, index), (v, high)]
            return self.call(v, "llvm.x86.avx512.vpermi2var.ps.512", given)
        parts = (
            self.call(v, "llvm.x86.avx2.permps", [(v, each), (i, index)]) for each in (high, low)
        )
        seven = "<" + ", ".join(["i32 7"] * 8) + ">"
        return self.choose(self.op(f"icmp ugt {i} {index}, {seven}"), *parts)

    def choose(self, mask: str, a: str, b: str) -> str:
        """The lanes of `a` where a mask of bits is set, of `b` where it is not."""
        mask = f"<{self.machine.lanes} x i1> {mask}"
        return self.op(f"select {mask}, {self.vector} {a}, {self.vector} {b}")

    def scalar(self, value: float) -> str:
        """A float32 constant."""
        bits = ctypes.c_uint64.from_buffer(ctypes.c_double(ctypes.c_float(value).value)).value
        return f"0x{bits:016X}"

    def constant(self, value: float) -> str:
        """A float32 constant in all lanes."""
        return "<" + ", ".join([f"float {self.scalar(value)}"] * self.machine.lanes) + ">"

    def fadd(self, a: str, b: str) -> str:
        """Sum."""
        return self.op(f"fadd {self.vector} {a}, {b}")

    def fmul(self, a: str, b: str) -> str:
        """Product."""
        return self.op(f"fmul {self.vector} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """`a * b + c`."""
        v = self.vector
        return self.call(v, f"llvm.fma.v{self.machine.lanes}f32", [(v, a), (v, b), (v, c)])

    def keep(self, value: str, mask: str) -> str:
        """The lanes whose mask is all ones; zero in the others, whatever they held."""
        bits = self.op(f"bitcast {self.vector} {value} to {self.elements}")
        kept = self.op(f"and {self.elements} {bits}, {mask}")
        return self.op(f"bitcast {self.elements} {kept} to {self.vector}")

    def shuffle(self, a: str, b: str, order: Sequence[int], kind: str = "i32") -> str:
        """Lanes chosen from two vectors."""
        lanes = self.machine.lanes
        chosen = ", ".join(f"i32 {lane}" for lane in order)
        return self.op(
            f"shufflevector <{lanes} x {kind}> {a}, <{lanes} x {kind}> {b}, "
            f"<{len(order)} x i32> <{chosen}>"
        )

    def deinterleave(self, a: str, b: str, kind: str = "i32") -> tuple[str, str]:
        """Even and odd lanes of two vectors that follow each other."""
        lanes = self.machine.lanes
        return (
            self.shuffle(a, b, range(0, 2 * lanes, 2), kind),
            self.shuffle(a, b, range(1, 2 * lanes, 2), kind),
        )

    def interleave(self, even: str, odd: str, kind: str = "i32") -> tuple[str, str]:
        """The inverse of `deinterleave`."""
        lanes = self.machine.lanes
        order = [half * lanes + lane for lane in range(lanes) for half in (0, 1)]
        return (
            self.shuffle(even, odd, order[:lanes], kind),
            self.shuffle(even, odd, order[lanes:], kind),
        )

    def sum_lanes(self, value: str) -> str:
        """The sum of all lanes, a scalar."""
        name = f"llvm.vector.reduce.fadd.v{self.machine.lanes}f32"
        self._declarations.add(f"declare float @{name}(float, {self.vector})")
        return self.op(f"call reassoc float @{name}(float 0.0, {self.vector} {value})")

    def reduce_max(self, value: str) -> str:
        """The largest of all lanes, a scalar."""
        name = f"llvm.vector.reduce.fmax.v{self.machine.lanes}f32"
        return self.call("float", name, [(self.vector, value)])

    def exponential(self, x: str) -> str:
        """The exponential function, to about the last digits."""
        v, lanes = self.vector, self.machine.lanes
        low, high = self.constant(-87.0), self.constant(88.0)
        x = self.call(v, f"llvm.maxnum.v{lanes}f32", [(v, x), (v, low)])
        x = self.call(v, f"llvm.minnum.v{lanes}f32", [(v, x), (v, high)])
        scaled = self.fmul(x, self.constant(1 / math.log(2)))
        whole = self.call(v, f"llvm.rint.v{lanes}f32", [(v, scaled)])
        # log 2 in two pieces, the first with few digits, so that the difference is exact
        coarse = 0.693359375
        rest = self.fma(whole, self.constant(-coarse), x)
        rest = self.fma(whole, self.constant(coarse - math.log(2)), rest)
        total = self.constant(1 / math.factorial(7))
        for power in range(6, -1, -1):
            total = self.fma(total, rest, self.constant(1 / math.factorial(power)))
        exponent = self.op(f"fptosi {v} {whole} to {self.elements}")
        shift = "<" + ", ".join(["i32 23"] * lanes) + ">"
        shifted = self.op(f"shl {self.elements} {exponent}, {shift}")
        bits = self.op(f"bitcast {v} {total} to {self.elements}")
        bits = self.op(f"add {self.elements} {bits}, {shifted}")
        return self.op(f"bitcast {self.elements} {bits} to {v}")

    # -- elements

    def dot(self, total: str, x: str, weight: str) -> str:
        """`total` plus the products of the channels of two vectors of elements."""
        v, m = self.vector, self.machine
        if not m.bfloat16:
            x = self.op(f"bitcast {self.elements} {x} to {v}")
            weight = self.op(f"bitcast {self.elements} {weight} to {v}")
            return self.fma(x, weight, total)
        pair = f"<{2 * m.lanes} x bfloat>"
        x = self.op(f"bitcast {self.elements} {x} to {pair}")
        weight = self.op(f"bitcast {self.elements} {weight} to {pair}")
        return self.call(
            v,
            f"llvm.x86.avx512bf16.dpbf16ps.{32 * m.lanes}",
            [(v, total), (pair, x), (pair, weight)],
        )

    def ones(self) -> str:
        """Elements whose channels are all one."""
        value = 0x3F803F80 if self.machine.bfloat16 else 0x3F800000
        return "<" + ", ".join([f"i32 {value}"] * self.machine.lanes) + ">"

    def _to_bfloat16(self, low: str, high: str) -> str:
        """Two vectors of float32, rounded, one after the other."""
        lanes = self.machine.lanes
        return self.call(
            f"<{2 * lanes} x bfloat>",
            f"llvm.x86.avx512bf16.cvtne2ps2bf16.{32 * lanes}",
            [(self.vector, high), (self.vector, low)],
        )

    def pack(self, channels: Sequence[str]) -> str:
        """Elements from the float32 vectors of their channels."""
        lanes = self.machine.lanes
        if not self.machine.bfloat16:
            return self.op(f"bitcast {self.vector} {channels[0]} to {self.elements}")
        both = self._to_bfloat16(channels[0], channels[1])
        order = ", ".join(f"i32 {half * lanes + lane}" for lane in range(lanes) for half in (0, 1))
        kind = f"<{2 * lanes} x bfloat>"
        mixed = self.op(
            f"shufflevector {kind} {both}, {kind} poison, <{2 * lanes} x i32> <{order}>"
        )
        return self.op(f"bitcast {kind} {mixed} to {self.elements}")

    def pack_neighbours(self, low: str, high: str) -> str:
        """Elements from 2 * lanes float32 that follow each other, two to an element."""
        both = self._to_bfloat16(low, high)
        return self.op(f"bitcast <{2 * self.machine.lanes} x bfloat> {both} to {self.elements}")

    def unpack(self, elements: str) -> list[str]:
        """The float32 vectors of the channels of elements."""
        e, v = self.elements, self.vector
        if not self.machine.bfloat16:
            return [self.op(f"bitcast {e} {elements} to {v}")]
        sixteen = "<" + ", ".join(["i32 16"] * self.machine.lanes) + ">"
        upper = "<" + ", ".join(["i32 -65536"] * self.machine.lanes) + ">"
        low = self.op(f"shl {e} {elements}, {sixteen}")
        high = self.op(f"and {e} {elements}, {upper}")
        return [self.op(f"bitcast {e} {low} to {v}"), self.op(f"bitcast {e} {high} to {v}")]

    # -- tiles

    def shape_tiles(self, shape: TileShape) -> None:
        """Say how the tiles are set up, the same in all of the function."""
        if self.shape not in (None, shape):
            raise ValueError(f"{self.name} has tiles of {self.shape} and of {shape}")
        self.shape = shape

    def zero_tile(self, tile: int) -> None:
        """Set a tile to zero."""
        self.call_for_effect("llvm.x86.tilezero", [("i8", str(tile))])

    def load_tile(self, tile: int, pointer: str, row: str | int) -> None:
        """Load a tile whose rows are so many bytes apart."""
        given = [("i8", str(tile)), ("ptr", pointer), ("i64", str(row))]
        self.call_for_effect("llvm.x86.tileloadd64", given)

    def store_tile(self, tile: int, pointer: str, row: str | int) -> None:
        """Store a tile with its rows so many bytes apart."""
        given = [("i8", str(tile)), ("ptr", pointer), ("i64", str(row))]
        self.call_for_effect("llvm.x86.tilestored64", given)

    def dot_tiles(self, total: int, weights: int, inputs: int) -> None:
        """Add the product of two tiles to a third."""
        given = [("i8", str(tile)) for tile in (total, weights, inputs)]
        self.call_for_effect("llvm.x86.tdpbf16ps", given)

    def inverse_root(self, value: str) -> str:
        """1 / sqrt, as precise as the elements are."""
        v, lanes = self.vector, self.machine.lanes
        if lanes == 16:
            name = "llvm.x86.avx512.rsqrt14.ps.512"
            self._declarations.add(f"declare {v} @{name}({v}, {v}, i16)")
            guess = self.op(f"call {v} @{name}({v} {value}, {v} zeroinitializer, i16 -1)")
        elif lanes == 8:
            guess = self.call(v, "llvm.x86.avx.rsqrt.ps.256", [(v, value)])
        else:
            root = self.call(v, f"llvm.sqrt.v{lanes}f32", [(v, value)])
            return self.op(f"fdiv {v} {self.constant(1.0)}, {root}")
        if self.machine.bfloat16:
            return guess
        # a step of Newton's doubles the digits, in a fraction of a division's time
        half = self.fmul(value, self.constant(-0.5))
        return self.fmul(guess, self.fma(half, self.fmul(guess, guess), self.constant(1.5)))

    # -- the result

    def text(self) -> tuple[str, set[str]]:
        """The function's definition, its call's, and the declarations that they need.

        The call takes the address of all arguments, 8 bytes each.
        """
        given = ", ".join(
            f"{kind} {'noalias ' if kind == 'ptr' else ''}%{name}" for name, kind in self.arguments
        )
        start, end, constants = [], ["ret void"], ""
        if self.shape is not None:
            settings = "".join(f"\\{byte:02X}" for byte in self.shape.settings())
            constants = f'@{self.name}.tiles = internal constant [64 x i8] c"{settings}"\n'
            start = [f"call void @llvm.x86.ldtilecfg(ptr @{self.name}.tiles)"]
            # left set up, they would be saved at every change of threads
            end = ["call void @llvm.x86.tilerelease()", "ret void"]
            self._declarations |= {
                "declare void @llvm.x86.ldtilecfg(ptr)",
                "declare void @llvm.x86.tilerelease()",
            }
        body = "\n".join(["entry:", *self._allocas, *start, *self._lines, *end])
        loads, passed = [], []
        for number, (name, kind) in enumerate(self.arguments):
            loads.append(f"%at.{name} = getelementptr i64, ptr %arguments, i64 {number}")
            loads.append(f"%{name} = load {kind}, ptr %at.{name}")
            passed.append(f"{kind} %{name}")
        call = f"call void @{self.name}({', '.join(passed)})"
        through = "\n".join(["entry:", *loads, call, "ret void"])
        text = (
            f"{constants}"
            f"define internal void @{self.name}({given}) #0 {{\n{body}\n}}\n"
            f"define void @{self.name}.call(ptr %arguments) #0 {{\n{through}\n}}\n"
        )
        return text, self._declarations


class Library:
    """Compiled kernels."""

    def __init__(self, machine: Machine, emitters: Sequence[Emitter]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        triple = llvm.get_process_triple()
        runner, declaration = run_program(triple)
        texts, declarations = [runner], {declaration}
        for emitter in emitters:
            text, needed = emitter.text()
            texts.append(text)
            declarations |= needed
        cpu, features = machine.target, ""
        if not cpu:
            cpu = llvm.get_host_cpu_name()
            features = llvm.get_host_cpu_features().flatten()
        width = 32 * machine.lanes
        attributes = (
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{width}" '
            f'"min-legal-vector-width"="{width}" }}'
        )
        source = "\n".join([*sorted(declarations), *texts, attributes])
        module = llvm.parse_assembly(source)
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=cpu, features=features, opt=3, jit=True
        )
        module.triple = triple
        module.data_layout = str(target.target_data)
        # no passes over the text: they took longer than the code generator, and gained nothing
        self._target, self._module = target, module
        self._engine = llvm.create_mcjit_compiler(module, target)
        self._engine.finalize_object()
        self.addresses = {
            emitter.name: self._engine.get_function_address(f"{emitter.name}.call")
            for emitter in emitters
        }
        """Where the kernels' calls are, by name; valid while this object lives."""
        address = self._engine.get_function_address("run_program")
        self.run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)(address)
        """llvm_run.run_program; it holds no lock."""
