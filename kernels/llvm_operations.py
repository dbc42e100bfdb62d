"""The types of LLVM IR, and the one table of its operations.

The text of every instruction stands in `OPERATIONS` and nowhere else.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple


class Type:
    """A type of LLVM: a scalar, a vector of scalars, or a pointer. There is one object of each.

    Args:
        scalar: LLVM's name of the scalar.
        bits: Size of the scalar in memory.
        target: What a pointer leads to. LLVM does not know it; loads, stores and offsets go by it.
    """

    __slots__ = ("_lane", "_vectors", "bits", "lanes", "scalar", "suffix", "target", "text")

    def __init__(self, scalar: str, bits: int, target: "Type | None" = None) -> None:
        self.scalar, self.bits, self.target = scalar, bits, target
        self.lanes = 0
        """Lanes of a vector; 0 for a scalar."""
        self.text = scalar
        """As LLVM reads it."""
        self.suffix = {"float": "f32", "ptr": "p0"}.get(scalar, scalar)
        """How the names of intrinsics end that exist for several types."""
        self._lane = self
        self._vectors: dict[int, Type] = {0: self}

    def __str__(self) -> str:
        return self.text

    @property
    def bytes(self) -> int:
        """Alignment of the scalar in memory."""
        return self.bits // 8

    def vector(self, lanes: int) -> "Type":
        """A vector of this scalar, or with no lanes the scalar."""
        found = self._lane._vectors.get(lanes)
        if found is None:
            made = Type(self.scalar, self.bits, self.target)
            made.lanes, made._lane = lanes, self._lane
            made.text = f"<{lanes} x {self.scalar}>"
            made.suffix = f"v{lanes}{self._lane.suffix}"
            # another thread may have made it meanwhile
            found = self._lane._vectors.setdefault(lanes, made)
        return found

    def lane(self) -> "Type":
        """The scalar of a vector."""
        return self._lane


_POINTERS: dict[Type, Type] = {}
"""The types of addresses, by what they lead to."""


def pointer(target: Type) -> Type:
    """The type of an address."""
    return _POINTERS.get(target) or _POINTERS.setdefault(target, Type("ptr", 64, target))


VOID = Type("void", 0)
"""The type of instructions without a value."""
I1, I8, I16, I32, I64 = (Type(f"i{bits}", bits) for bits in (1, 8, 16, 32, 64))
"""Integers by their bits."""
F32 = Type("float", 32)
"""float32."""
BF16 = Type("bfloat", 16)
"""bfloat16."""
EXCHANGED = Type("{ i64, i1 }", 0)
"""The result of a compare-and-exchange: the old value, and whether it was exchanged."""

INDEX = I64
"""The type of sizes, indices and offsets."""
FLOATS = pointer(F32)
"""Address of float32."""
ELEMENTS = pointer(I32)
"""Address of 32-bit integers, and of the elements of maps (llvm_ir.py)."""
BYTES = pointer(I8)
"""Address of bytes, or of samples whose size in bytes is counted separately."""


class Operation(NamedTuple):
    """How an operation is written, and which types it takes and gives."""

    text: str
    """The instruction, where `{0}` is an operand, `{0.type}` its type and `{type}` the result's.

    A text that begins with @ is the name of an intrinsic, which is called with all operands.
    """
    operands: tuple[str, ...]
    """The kind of each operand, of `_KINDS`; a number stands for the type of that operand."""
    result: str = "0"
    """The number of the operand whose type the result has, or one of these.

    `truths`: i1, as many as the first operand has lanes. `lane`: the first operand's scalar.
    `explicit`: the caller passes it. `none`: no value.
    """
    is_shared: bool = False
    """Whether a block writes it once and uses it again."""
    flags: str = ""
    """What the call of an intrinsic allows."""


_KINDS: dict[str, Callable[[Type], bool]] = {
    "float": lambda type: type.scalar == "float",
    "integer": lambda type: type.scalar in ("i1", "i8", "i16", "i32", "i64"),
    "index": lambda type: type == I64,
    "truth": lambda type: type.scalar == "i1",
    "bfloats": lambda type: type.scalar == "bfloat",
    "pointer": lambda type: type.scalar == "ptr" and not type.lanes,
    "pointers": lambda type: type.scalar == "ptr" and type.lanes > 0,
    "tile": lambda type: type == I8,
    "any": lambda type: True,
}


def _binary(
    kind: str, *names: str, result: str = "0", is_shared: bool = False
) -> dict[str, Operation]:
    form = " {0.type} {0}, {1}"
    return {name: Operation(name + form, (kind, "0"), result, is_shared) for name in names}


def _conversions(**kinds: str) -> dict[str, Operation]:
    form = " {0.type} {0} to {type}"
    return {name: Operation(name + form, (kind,), "explicit") for name, kind in kinds.items()}


def _intrinsics(*names: str, operands: tuple[str, ...], result: str = "0") -> dict[str, Operation]:
    """Intrinsics that exist for several types."""
    form = ".{0.type.suffix}"
    return {name: Operation(f"@llvm.{name}" + form, operands, result) for name in names}


OPERATIONS: dict[str, Operation] = {
    **_binary("float", "fadd", "fsub", "fmul", "fdiv"),
    **_binary("integer", "add", "sub", "mul", "and", "or", "xor", "shl", "ashr", "lshr"),
    **_binary("integer", "sdiv", "udiv", "urem", "udiv exact"),
    # indices never wrap
    **_binary("index", "add nsw", "mul nsw", is_shared=True),
    **_binary("index", "sub nsw"),
    **_binary("float", "fcmp olt", "fcmp ogt", "fcmp oeq", result="truths"),
    **_binary("integer", "icmp slt", "icmp sgt", "icmp sge", "icmp eq", result="truths"),
    **_binary("integer", "icmp ult", "icmp ugt", result="truths"),
    **_conversions(sitofp="integer", fptosi="float", zext="integer", sext="integer"),
    **_conversions(trunc="integer", bitcast="any"),
    "select": Operation(
        "select {0.type} {0}, {1.type} {1}, {2.type} {2}", ("truth", "any", "1"), "1"
    ),
    # memory
    "alloca": Operation("alloca [{count} x i{type.target.bits}], align 64", (), "explicit"),
    "offset": Operation(
        "getelementptr i{0.type.target.bits}, ptr {0}, {1.type} {1}",
        ("pointer", "integer"),
        "explicit",
        is_shared=True,
    ),
    "load": Operation("load {type}, ptr {0}, align {type.bytes}", ("pointer",), "explicit"),
    "store": Operation(
        "store {0.type} {0}, ptr {1}, align {0.type.bytes}", ("any", "pointer"), "none"
    ),
    "gather": Operation(
        "@llvm.masked.gather.{3.type.suffix}.{0.type.suffix}",
        ("pointers", "integer", "truth", "any"),
        "3",
    ),
    # lanes
    "insert": Operation("insertelement {type} poison, {0.type} {0}, i32 0", ("any",), "explicit"),
    "extract": Operation("extractelement {0.type} {0}, i32 {lane}", ("any",), "lane"),
    "shuffle": Operation(
        "shufflevector {0.type} {0}, {1.type} {1}, <{type.lanes} x i32> {order}",
        ("any", "0"),
        "explicit",
    ),
    **_intrinsics("vector.reduce.fmax", operands=("float",), result="lane"),
    **_intrinsics(
        *(f"vector.reduce.{name}" for name in ("smin", "smax", "and", "or")),
        operands=("integer",),
        result="lane",
    ),
    "vector.reduce.fadd": Operation(
        "@llvm.vector.reduce.fadd.{1.type.suffix}", ("float", "float"), flags="reassoc "
    ),
    # functions
    **_intrinsics("fma", operands=("float", "0", "0")),
    **_intrinsics("minnum", "maxnum", operands=("float", "0")),
    **_intrinsics("smin", "smax", operands=("integer", "0")),
    **_intrinsics("fabs", "rint", "sqrt", operands=("float",)),
    # of x86
    "rsqrt14": Operation("@llvm.x86.avx512.rsqrt14.ps.512", ("float", "0", "integer")),
    "rsqrt": Operation("@llvm.x86.avx.rsqrt.ps.256", ("float",)),
    "vpermi2": Operation("@llvm.x86.avx512.vpermi2var.ps.512", ("float", "integer", "0")),
    "vperm": Operation("@llvm.x86.avx2.permps", ("float", "integer")),
    "dot bfloat16": Operation("@llvm.x86.avx512bf16.dpbf16ps.512", ("float", "bfloats", "1")),
    "dot int8": Operation("@llvm.x86.avx512.vpdpbusd.512", ("integer", "0", "0")),
    "to bfloat16": Operation("@llvm.x86.avx512bf16.cvtne2ps2bf16.512", ("float", "0"), "explicit"),
    "zero tile": Operation("@llvm.x86.tilezero", ("tile",), "none"),
    "load tile": Operation("@llvm.x86.tileloadd64", ("tile", "pointer", "index"), "none"),
    "store tile": Operation("@llvm.x86.tilestored64", ("tile", "pointer", "index"), "none"),
    "dot tiles": Operation("@llvm.x86.tdpbf16ps", ("tile", "tile", "tile"), "none"),
    "configure tiles": Operation("@llvm.x86.ldtilecfg", ("pointer",), "none"),
    "release tiles": Operation("@llvm.x86.tilerelease", (), "none"),
    # control
    "jump": Operation("br label %{to}", (), "none"),
    "branch": Operation("br i1 {0}, label %{then}, label %{otherwise}", ("truth",), "none"),
    "phi": Operation("phi {type} {ways}", (), "explicit"),
    "return": Operation("ret void", (), "none"),
    "call": Operation("call void {function}({arguments})", (), "none"),
    # threads
    "load atomic": Operation(
        "load atomic {type}, ptr {0} acquire, align {type.bytes}", ("pointer",), "explicit"
    ),
    "exchange": Operation(
        "cmpxchg ptr {0}, {1.type} {1}, {2.type} {2} acq_rel monotonic, align {1.type.bytes}",
        ("pointer", "integer", "1"),
        "explicit",
    ),
    # the braces are those of a type, written twice because texts are formatted twice
    "is exchanged": Operation("extractvalue {{{{ i64, i1 }}}} {0}, 1", ("any",), "explicit"),
    "count": Operation(
        "atomicrmw add ptr {0}, {1.type} {1} acq_rel, align {1.type.bytes}",
        ("pointer", "integer"),
        "1",
    ),
    "call for number": Operation("call {type} {0}()", ("pointer",), "explicit"),
    "pause x86": Operation("@llvm.x86.sse2.pause", (), "none"),
    "pause arm": Operation("@llvm.aarch64.hint", ("integer",), "none"),
}


def literal(type: Type, number: float) -> str:
    """A constant as LLVM reads it, the same in all lanes of a vector."""
    if type.lanes:
        lane = type.lane()
        return "<" + ", ".join([f"{lane} {literal(lane, number)}"] * type.lanes) + ">"
    if type.scalar != "float":
        return str(int(number))
    bits = ctypes.c_uint64.from_buffer(ctypes.c_double(ctypes.c_float(number).value)).value
    return f"0x{bits:016X}"


def literals(type: Type, numbers: Sequence[float]) -> str:
    """A constant vector as LLVM reads it."""
    lane = type.lane()
    return "<" + ", ".join([f"{lane} {literal(lane, number)}" for number in numbers]) + ">"


class Form(NamedTuple):
    """An operation on operands of known types."""

    result: Type
    text: str
    """The instruction, where `{0}` is the name of an operand, and words are in braces too."""
    declaration: str
    """The declaration that it needs, if any."""
    is_shared: bool


class _Placeholder(NamedTuple):
    """An operand whose name is not known yet."""

    name: str
    type: Type

    def __format__(self, _: str) -> str:
        return self.name


@cache
def form(name: str, types: tuple[Type, ...], explicit: Type | None, words: tuple[str, ...]) -> Form:
    """Check an operation's types, and write it but for names.

    Raises:
        TypeError: An operand is not of the kind that the operation takes.
    """
    operation = OPERATIONS[name]
    kinds = operation.operands
    if len(types) != len(kinds) or not all(
        type is types[int(kind)] if kind.isdigit() else _KINDS[kind](type)
        for kind, type in zip(kinds, types, strict=True)
    ):
        raise TypeError(f"{name} takes {', '.join(kinds)}, not {', '.join(map(str, types))}")
    result = _result(operation, types, explicit)
    slots = [_Placeholder(f"{{{number}}}", type) for number, type in enumerate(types)]
    text = operation.text.format(*slots, type=result, **{word: f"{{{word}}}" for word in words})
    if not text.startswith("@"):
        return Form(result, text, "", operation.is_shared)
    # numbers of tiles are constants
    declared = ", ".join(f"{type} immarg" if type is I8 else str(type) for type in types)
    passed = ", ".join(f"{each.type} {each}" for each in slots)
    return Form(
        result,
        f"call {operation.flags}{result} {text}({passed})",
        f"declare {result} {text}({declared})",
        operation.is_shared,
    )


def _result(operation: Operation, types: Sequence[Type], explicit: Type | None) -> Type:
    """The type of a result."""
    if operation.result == "none":
        return VOID
    if operation.result == "explicit":
        if explicit is None:
            raise TypeError(f"{operation.text} needs the type of its result")
        return explicit
    if operation.result == "truths":
        return I1.vector(types[0].lanes)
    if operation.result == "lane":
        return types[0].lane()
    return types[int(operation.result)]
