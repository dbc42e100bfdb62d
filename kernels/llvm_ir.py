"""The emitter of kernels: functions of LLVM IR, with loops, vectors and AMX's tiles.

Every map is made of 32-bit elements, one for each pixel: a float32 channel, or where the processor
multiplies pairs of bfloat16, two neighbouring channels. Kernels are written once for both.

A kernel is written by a Python function that runs once. `for row in e.loop(0, rows):` runs its body
once too, and what the body emits is a loop of the kernel.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mhnet_video.kernels.llvm_machine import Machine, TileShape
from mhnet_video.kernels.llvm_operations import (
    BF16,
    BYTES,
    F32,
    I1,
    I8,
    I16,
    I32,
    I64,
    INDEX,
    OPERATIONS,
    Type,
    literals,
    pointer,
)
from mhnet_video.kernels.llvm_signature import Signature
from mhnet_video.kernels.llvm_values import Block, Value

Index = Value | int
"""An index of a loop, or of a loop that Python unrolls."""


class Parameters:
    """A kernel's parameters, each an attribute."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Value:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the kernel has no parameter {name}") from None


class Emitter(Block):
    """Writes one kernel.

    Args:
        machine: What the kernel is made for.
        name: The kernel's name.
        parameters: The type of each parameter.
    """

    def __init__(self, machine: Machine, name: str, /, **parameters: Type) -> None:
        super().__init__("v")
        self.machine = machine
        self.signature = Signature(name, tuple(parameters))
        self.types = parameters
        """The type of each parameter."""
        self.parameters = Parameters(
            {each: Value(self, type, f"%{each}") for each, type in parameters.items()}
        )
        self.floats = F32.vector(machine.lanes)
        """The type of vectors of float32."""
        self.integers = I32.vector(machine.lanes)
        """The type of vectors of elements, or of 32-bit integers."""
        self.shape: TileShape | None = None
        """How the tiles are configured; None if the kernel uses none."""
        self._label = "entry"
        self._entry = Block("s")
        self._shared: dict[str, tuple[int, Value]] = {}

    # -- control flow

    def begin(self, label: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{label}:")
        self._label = label
        self.forget()

    def jump(self, label: str) -> None:
        """End the basic block: go on at another one."""
        self.emit("jump", to=label)

    def branch(self, condition: Value, then: str, otherwise: str) -> None:
        """End the basic block: go on at one of two."""
        self.emit("branch", condition, then=then, otherwise=otherwise)

    def loop(
        self, start: Index, stop: Index, step: Index = 1, carry: list[Value] | None = None
    ) -> Iterator[Value]:
        """A loop. Its body is run once, to emit it, and must not be left by `break` or `return`.

        Args:
            start: First index.
            stop: End of the indices, excluded.
            step: Between indices.
            carry: Values that the loop changes: the first ones. The body finds those of an
                iteration in this list, and puts those of the next one there. Afterwards it holds
                the last ones.

        Yields:
            The index.
        """
        carry = [] if carry is None else carry
        first, before = list(carry), self._label
        head, inside, after = (self.number(each) for each in ("head", "body", "done"))
        self.jump(head)
        self.begin(head)
        insertion = len(self.lines)
        index = Value(self, INDEX, f"%i{head}")
        current = [
            Value(self, value.type, f"%c{head}_{number}") for number, value in enumerate(carry)
        ]
        carry[:] = current
        self.branch(index < stop, inside, after)
        self.begin(inside)
        yield index
        following = index + step
        last = self._label
        self.jump(head)
        self.begin(after)
        starts = [self._index(start), *first]
        phis = zip([index, *current], starts, [following, *carry], strict=True)
        self.lines[insertion:insertion] = [
            f"{value} = {self._phi([(begin, before), (end, last)])}" for value, begin, end in phis
        ]
        carry[:] = current

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What the `with` block emits is done if the condition holds."""
        inside, after = self.number("then"), self.number("after")
        self.branch(condition, inside, after)
        self.begin(inside)
        yield
        self.jump(after)
        self.begin(after)

    def either(
        self,
        condition: Value,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
    ) -> list[Value]:
        """Values that are made in one way if the condition holds, else in another."""
        inside, outside, after = (self.number(each) for each in ("then", "else", "after"))
        self.branch(condition, inside, outside)
        ways = []
        for label, body in ((inside, then), (outside, otherwise)):
            self.begin(label)
            values = body()
            ways.append([(value, self._label) for value in values])
            self.jump(after)
        self.begin(after)
        merged = []
        for both in zip(*ways, strict=True):
            merged.append(Value(self, both[0][0].type, f"%{self.number('v')}"))
            self.lines.append(f"{merged[-1]} = {self._phi(both)}")
        return merged

    def _phi(self, ways: Sequence[tuple[Value, str]]) -> str:
        type = ways[0][0].type
        if any(value.type != type for value, _ in ways):
            raise TypeError(
                f"{self.signature.name} merges {', '.join(str(v.type) for v, _ in ways)}"
            )
        text = ", ".join(f"[{value}, %{label}]" for value, label in ways)
        return OPERATIONS["phi"].text.format(type=type, ways=text)

    # -- constants

    def _index(self, number: Index) -> Value:
        return number if isinstance(number, Value) else self.constant(INDEX, number)

    def zero(self, type: Type | None = None) -> Value:
        """Zero in all lanes; by default of float32."""
        return Value(self, type or self.floats, "zeroinitializer")

    def splat_constant(self, number: float) -> Value:
        """A float32 constant in all lanes."""
        return self.constant(self.floats, float(number))

    def lanes_of(self, numbers: Sequence[float], type: Type = F32) -> Value:
        """A constant of its own in each lane."""
        vector = type.vector(len(numbers))
        return Value(self, vector, literals(vector, numbers))

    def ramp(self, start: int = 0) -> Value:
        """Integers from `start` on, one to a lane."""
        return self.lanes_of(range(start, start + self.machine.lanes), I32)

    def ones(self) -> Value:
        """Elements whose channels are all one."""
        return self.constant(self.integers, 0x3F803F80 if self.machine.bfloat16 else 0x3F800000)

    # -- memory

    def scratch(self, target: Type, count: int) -> Value:
        """Memory for so many items, for as long as the kernel runs."""
        memory = self._entry.emit("alloca", type=pointer(target), count=count)
        return Value(self, memory.type, memory.name)

    def shared_scratch(self, purpose: str, target: Type, count: int) -> Value:
        """Scratch that every use for a purpose shares; the first use says how much there is.

        Raises:
            ValueError: A later use needs more.
        """
        if purpose not in self._shared:
            self._shared[purpose] = count, self.scratch(target, count)
        available, memory = self._shared[purpose]
        if count > available:
            raise ValueError(f"{self.signature.name} has {available} items for {purpose}")
        return memory

    def load(self, address: Value) -> Value:
        """Load a vector of the pointer's type."""
        return self.emit("load", address, type=_target(address).vector(self.machine.lanes))

    def load_scalar(self, address: Value) -> Value:
        """Load a scalar of the pointer's type."""
        return self.emit("load", address, type=_target(address))

    def broadcast(self, address: Value) -> Value:
        """Load a scalar into all lanes."""
        return self.splat(self.load_scalar(address))

    def store(self, value: Value, address: Value) -> None:
        """Store a vector or a scalar.

        Raises:
            TypeError: The pointer has another type.
        """
        if value.type.lane() != _target(address):
            raise TypeError(f"{value!r} is stored where {_target(address)} are")
        self.emit("store", value, address)

    def gather(self, base: Value, index: Value) -> Value:
        """Load the scalars at a vector of 32-bit indices from a pointer."""
        lanes = self.machine.lanes
        target = _target(base)
        addresses = self.emit("offset", base, index, type=pointer(target).vector(lanes))
        return self.emit(
            "gather",
            addresses,
            self.constant(I32, target.bytes),
            self.constant(I1.vector(lanes), 1),
            Value(self, target.vector(lanes), "poison"),
        )

    # -- lanes

    def splat(self, value: Value) -> Value:
        """A scalar in all lanes."""
        type = value.type.vector(self.machine.lanes)
        one = self.emit("insert", value, type=type)
        return self.emit(
            "shuffle", one, Value(self, type, "poison"), type=type, order="zeroinitializer"
        )

    def shuffle(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        """Lanes chosen from two vectors that follow each other."""
        type = a.type.vector(len(order))
        return self.emit("shuffle", a, b, type=type, order=literals(I32.vector(len(order)), order))

    def deinterleave(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Even and odd lanes of two vectors that follow each other."""
        lanes = self.machine.lanes
        even, odd = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)
        return self.shuffle(a, b, even), self.shuffle(a, b, odd)

    def interleave(self, even: Value, odd: Value) -> tuple[Value, Value]:
        """The inverse of `deinterleave`."""
        lanes = self.machine.lanes
        order = [half * lanes + lane for lane in range(lanes) for half in (0, 1)]
        return self.shuffle(even, odd, order[:lanes]), self.shuffle(even, odd, order[lanes:])

    def select(self, condition: Value, a: Value, b: Value | float) -> Value:
        """`a` where a condition holds, `b` where it does not."""
        return self.emit("select", condition, a, self._like(a, b))

    def keep(self, value: Value, mask: Value) -> Value:
        """The lanes whose mask is all ones; zero in the others, whatever they held."""
        return (value.bits_as(self.integers) & mask).bits_as(self.floats)

    def look_up(self, low: Value, high: Value, index: Value) -> Value:
        """Lanes of two vectors, by a vector of their numbers, 0 to twice the lanes less one."""
        if self.machine.lanes == 16:
            return self.emit("vpermi2", low, index, high)
        parts = [self.emit("vperm", each, index) for each in (high, low)]
        return self.select(index.above(7), *parts)

    def reduce(self, how: str, value: Value) -> Value:
        """All lanes in one: `fmax`, `smin`, `smax`, or of truth values `and`, `or`."""
        return self.emit(f"vector.reduce.{how}", value)

    def sum_lanes(self, value: Value) -> Value:
        """The sum of all lanes of a vector of float32, in any order."""
        return self.emit("vector.reduce.fadd", self.constant(F32, 0.0), value)

    # -- functions

    def _like(self, value: Value, number: Value | float) -> Value:
        return number if isinstance(number, Value) else self.constant(value.type, number)

    def fma(self, a: Value, b: Value | float, c: Value | float) -> Value:
        """`a * b + c`, rounded once."""
        return self.emit("fma", a, self._like(a, b), self._like(a, c))

    def minimum(self, a: Value, b: Value | float) -> Value:
        """The smaller one."""
        name = "minnum" if a.type.scalar == F32.scalar else "smin"
        return self.emit(name, a, self._like(a, b))

    def maximum(self, a: Value, b: Value | float) -> Value:
        """The larger one."""
        name = "maxnum" if a.type.scalar == F32.scalar else "smax"
        return self.emit(name, a, self._like(a, b))

    def clamp(self, x: Value, low: Value | float, high: Value | float) -> Value:
        """`x`, held between two bounds."""
        return self.minimum(self.maximum(x, low), high)

    def absolute(self, x: Value) -> Value:
        """The absolute value of float32."""
        return self.emit("fabs", x)

    def round(self, x: Value) -> Value:
        """Float32 rounded to whole numbers, to even ones halfway between two."""
        return self.emit("rint", x)

    def sqrt(self, x: Value) -> Value:
        """The square root."""
        return self.emit("sqrt", x)

    def inverse_root(self, x: Value) -> Value:
        """1 / sqrt, as precise as the elements are."""
        if self.machine.lanes == 16:
            guess = self.emit("rsqrt14", x, self.zero(), self.constant(I16, -1))
        elif self.machine.lanes == 8:
            guess = self.emit("rsqrt", x)
        else:
            return 1.0 / self.sqrt(x)
        if self.machine.bfloat16:
            return guess
        # a step of Newton's doubles the digits, in a fraction of a division's time
        half = x * -0.5
        return guess * self.fma(half, guess * guess, 1.5)

    def exponential(self, x: Value) -> Value:
        """The exponential function, to about the last digits."""
        x = self.clamp(x, -87.0, 88.0)
        whole = self.round(x * (1 / math.log(2)))
        # log 2 in two pieces, the first with few digits, so that the difference is exact
        coarse = 0.693359375
        rest = self.fma(whole, -coarse, x)
        rest = self.fma(whole, coarse - math.log(2), rest)
        total = self.splat_constant(1 / math.factorial(7))
        for power in range(6, -1, -1):
            total = self.fma(total, rest, 1 / math.factorial(power))
        exponent = whole.to_integer() << 23
        return (total.bits_as(self.integers) + exponent).bits_as(self.floats)

    # -- elements

    def dot(self, total: Value, x: Value, weight: Value) -> Value:
        """`total` plus the products of the channels of two vectors of elements."""
        if not self.machine.bfloat16:
            return self.fma(x.bits_as(self.floats), weight.bits_as(self.floats), total)
        pairs = BF16.vector(2 * self.machine.lanes)
        return self.emit("dot bfloat16", total, x.bits_as(pairs), weight.bits_as(pairs))

    def dot_int8(self, total: Value, x: Value, weight: Value) -> Value:
        """32-bit `total` plus the products of four unsigned bytes and of four signed ones."""
        return self.emit("dot int8", total, x, weight)

    def _to_bfloat16(self, low: Value, high: Value) -> Value:
        """Two vectors of float32, rounded, one after the other."""
        return self.emit("to bfloat16", high, low, type=BF16.vector(2 * self.machine.lanes))

    def pack(self, channels: Sequence[Value]) -> Value:
        """Elements from the float32 vectors of their channels."""
        lanes = self.machine.lanes
        if not self.machine.bfloat16:
            return channels[0].bits_as(self.integers)
        both = self._to_bfloat16(channels[0], channels[1])
        order = [half * lanes + lane for lane in range(lanes) for half in (0, 1)]
        mixed = self.shuffle(both, Value(self, both.type, "poison"), order)
        return mixed.bits_as(self.integers)

    def pack_neighbours(self, low: Value, high: Value) -> Value:
        """Elements from 2 * lanes float32 that follow each other, two to an element."""
        return self._to_bfloat16(low, high).bits_as(self.integers)

    def unpack(self, elements: Value) -> list[Value]:
        """The float32 vectors of the channels of elements."""
        if not self.machine.bfloat16:
            return [elements.bits_as(self.floats)]
        both = elements << 16, elements & -65536
        return [each.bits_as(self.floats) for each in both]

    # -- tiles

    def shape_tiles(self, shape: TileShape) -> None:
        """Say how the tiles are configured, the same in all of the kernel.

        Raises:
            ValueError: They were to be configured in another way.
        """
        if self.shape not in (None, shape):
            raise ValueError(f"{self.signature.name} has tiles of {self.shape} and of {shape}")
        self.shape = shape

    def _tile(self, number: int) -> Value:
        return self.constant(I8, number)

    def zero_tile(self, tile: int) -> None:
        """Set a tile to zero."""
        self.emit("zero tile", self._tile(tile))

    def load_tile(self, tile: int, address: Value, row_bytes: Index) -> None:
        """Load a tile whose rows are so many bytes apart."""
        self.emit("load tile", self._tile(tile), address, self._index(row_bytes))

    def store_tile(self, tile: int, address: Value, row_bytes: Index) -> None:
        """Store a tile with its rows so many bytes apart."""
        self.emit("store tile", self._tile(tile), address, self._index(row_bytes))

    def dot_tiles(self, total: int, weights: int, inputs: int) -> None:
        """Add the product of two tiles to a third."""
        self.emit("dot tiles", *(self._tile(each) for each in (total, weights, inputs)))

    # -- the result

    def text(self) -> tuple[str, set[str]]:
        """The kernel, the function that calls it, and the declarations that they need.

        The calling function takes the address of the bound arguments, 8 bytes each.
        """
        name, parameters = self.signature.name, self.types
        start, end, constant = Block("t"), Block("t"), ""
        if self.shape is not None:
            settings = "".join(f"\\{byte:02X}" for byte in self.shape.settings())
            constant = f'@{name}.tiles = internal constant [64 x i8] c"{settings}"\n'
            start.emit("configure tiles", Value(start, BYTES, f"@{name}.tiles"))
            # left configured, they would be saved at every change of threads
            end.emit("release tiles")
        end.emit("return")
        caller = Block("a")
        bound = Value(caller, pointer(I64), "%arguments")
        passed = []
        for number, type in enumerate(parameters.values()):
            address = caller.emit("offset", bound, caller.constant(INDEX, number), type=bound.type)
            passed.append(caller.emit("load", address, type=type))
        arguments = ", ".join(f"{each.type} {each}" for each in passed)
        caller.emit("call", function=f"@{name}", arguments=arguments)
        caller.emit("return")
        body = [*self._entry.lines, *start.lines, *self.lines, *end.lines]
        text = (
            constant
            + function(name, parameters, body, is_kernel=True)
            + function(f"{name}.call", {"arguments": bound.type}, caller.lines)
        )
        return text, self.declarations | start.declarations | end.declarations


def function(
    name: str, parameters: Mapping[str, Type], lines: Sequence[str], *, is_kernel: bool = False
) -> str:
    """The definition of a function without a result.

    Args:
        name: The function's name.
        parameters: Its parameters.
        lines: Its instructions.
        is_kernel: Whether only a calling function calls it, with arrays that do not overlap.
    """
    alias, linkage = ("noalias ", "internal ") if is_kernel else ("", "")
    taken = ", ".join(
        f"{type} {alias if type.target else ''}%{each}" for each, type in parameters.items()
    )
    body = "\n".join(["entry:", *lines])
    return f"define {linkage}void @{name}({taken}) #0 {{\n{body}\n}}\n"


def _target(address: Value) -> Type:
    """The type that a pointer points to.

    Raises:
        TypeError: It is no pointer.
    """
    if address.type.target is None or address.type.lanes:
        raise TypeError(f"{address!r} is no pointer")
    return address.type.target
