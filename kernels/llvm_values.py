"""Typed values of LLVM IR, and the block of instructions that they belong to.

An operation on values appends its instruction to their block, and returns a typed value. Operands
of wrong types are a `TypeError` when the kernel is written, before LLVM sees it.
"""

from mhnet_video.kernels.llvm_operations import (
    F32,
    I32,
    I64,
    VOID,
    Type,
    form,
    literal,
    pointer,
)


class Value:
    """A result of an instruction, an argument, or a constant.

    Numbers of Python stand for constants of the other operand's type. `+`, `-` and `*` of 64-bit
    integers are for indices, which never wrap. A pointer plus an index is the address of so many
    items further on. `>>` keeps the sign.
    """

    __slots__ = ("_block", "name", "type")

    def __init__(self, block: "Block", type: Type, name: str) -> None:
        self._block, self.type, self.name = block, type, name

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.type} {self.name}"

    def _emit(self, operation: str, *others: "Value | float", type: Type | None = None) -> "Value":
        operands = [self._constant(each) for each in others]
        return self._block.emit(operation, self, *operands, type=type)

    def _constant(self, number: "Value | float") -> "Value":
        return number if isinstance(number, Value) else self._block.constant(self.type, number)

    def _of_kind(self, floats: str, integers: str) -> str:
        return floats if self.type.scalar == "float" else integers

    # -- arithmetic

    def __add__(self, other: "Value | float") -> "Value":
        if isinstance(other, int) and other == 0:
            return self
        if self.type.target is not None:
            step = other if isinstance(other, Value) else self._block.constant(I64, other)
            return self._block.emit("offset", self, step, type=self.type)
        return self._emit(self._of_kind("fadd", "add nsw" if self.type == I64 else "add"), other)

    def __radd__(self, other: float) -> "Value":
        return self if other == 0 else self._constant(other) + self

    def __sub__(self, other: "Value | float") -> "Value":
        if isinstance(other, int) and self.type == I64:
            return self + -other
        return self._emit(self._of_kind("fsub", "sub nsw" if self.type == I64 else "sub"), other)

    def __mul__(self, other: "Value | float") -> "Value":
        if isinstance(other, int) and other == 1:
            return self
        return self._emit(self._of_kind("fmul", "mul nsw" if self.type == I64 else "mul"), other)

    def __rmul__(self, other: float) -> "Value":
        return self if other == 1 else self._constant(other) * self

    def __truediv__(self, other: "Value | float") -> "Value":
        return self._emit("fdiv", other)

    def __rtruediv__(self, other: float) -> "Value":
        return self._constant(other) / self

    def exact_div(self, other: int) -> "Value":
        """The quotient by a number that divides it, and not negative."""
        return self._emit("udiv exact", other)

    def udiv(self, other: int) -> "Value":
        """The quotient of numbers that are not negative."""
        return self._emit("udiv", other)

    def urem(self, other: int) -> "Value":
        """The rest of the division of numbers that are not negative."""
        return self._emit("urem", other)

    def sdiv(self, other: int) -> "Value":
        """The quotient, rounded towards zero."""
        return self._emit("sdiv", other)

    # -- bits

    def __and__(self, other: "Value | int") -> "Value":
        return self._emit("and", other)

    def __or__(self, other: "Value | int") -> "Value":
        return self._emit("or", other)

    def __lshift__(self, other: "Value | int") -> "Value":
        return self._emit("shl", other)

    def __rshift__(self, other: "Value | int") -> "Value":
        return self._emit("ashr", other)

    def lshr(self, other: int) -> "Value":
        """Shifted to the right, with zeros coming in."""
        return self._emit("lshr", other)

    def __invert__(self) -> "Value":
        return self._emit("xor", -1)

    # -- comparisons, lane by lane

    def __lt__(self, other: "Value | float") -> "Value":
        return self._emit(self._of_kind("fcmp olt", "icmp slt"), other)

    def __gt__(self, other: "Value | float") -> "Value":
        return self._emit(self._of_kind("fcmp ogt", "icmp sgt"), other)

    def __ge__(self, other: "Value | int") -> "Value":
        return self._emit("icmp sge", other)

    def equals(self, other: "Value | float") -> "Value":
        """Whether they are equal. `==` is Python's, so that values can be kept in sets."""
        return self._emit(self._of_kind("fcmp oeq", "icmp eq"), other)

    def below(self, other: "Value | int") -> "Value":
        """Whether it is less, where negative numbers count as very large ones."""
        return self._emit("icmp ult", other)

    def above(self, other: "Value | int") -> "Value":
        """Whether it is greater, where negative numbers count as very large ones."""
        return self._emit("icmp ugt", other)

    # -- conversions

    def to_float(self) -> "Value":
        """Signed integers as float32."""
        return self._emit("sitofp", type=F32.vector(self.type.lanes))

    def to_integer(self) -> "Value":
        """Float32 cut to signed 32-bit integers."""
        return self._emit("fptosi", type=I32.vector(self.type.lanes))

    def narrow(self, lane: Type) -> "Value":
        """Integers cut to fewer bits."""
        return self._emit("trunc", type=lane.vector(self.type.lanes))

    def widen(self, lane: Type) -> "Value":
        """Signed integers of more bits."""
        return self._emit("sext", type=lane.vector(self.type.lanes))

    def widen_unsigned(self, lane: Type) -> "Value":
        """Unsigned integers of more bits."""
        return self._emit("zext", type=lane.vector(self.type.lanes))

    def bits_as(self, type: Type) -> "Value":
        """The same bits as another type of that size."""
        size = [max(each.lanes, 1) * each.bits for each in (self.type, type)]
        if size[0] != size[1]:
            raise TypeError(f"{self.type} and {type} are not of one size")
        return self._emit("bitcast", type=type)

    def leading_to(self, target: Type) -> "Value":
        """The same address, of another type."""
        if self.type.target is None:
            raise TypeError(f"{self!r} is no pointer")
        return Value(self._block, pointer(target), self.name)

    def lane(self, number: int) -> "Value":
        """One lane of a vector."""
        return self._block.emit("extract", self, lane=number)


class Block:
    """Instructions of a function, one after the other.

    Args:
        word: How the names of results begin.
    """

    def __init__(self, word: str) -> None:
        self._word = word
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self._count = 0
        self._known: dict[str, Value] = {}

    def emit(
        self, operation: str, *operands: Value, type: Type | None = None, **words: object
    ) -> Value:
        """Append an instruction.

        Args:
            operation: Its name in `OPERATIONS`.
            operands: What it works on.
            type: The result's type, where the operands do not say it.
            words: What else its text has.

        Raises:
            TypeError: An operand is not of the kind that the operation takes.
        """
        known = form(operation, tuple([each.type for each in operands]), type, tuple(words))
        text = known.text.format(*[each.name for each in operands], **words)
        if known.is_shared and text in self._known:
            return self._known[text]
        if known.declaration:
            self.declarations.add(known.declaration)
        if known.result is VOID:
            self.lines.append(text)
            return Value(self, VOID, "")
        value = Value(self, known.result, f"%{self.number(self._word)}")
        self.lines.append(f"{value.name} = {text}")
        if known.is_shared:
            self._known[text] = value
        return value

    def number(self, word: str) -> str:
        """A new name."""
        self._count += 1
        return f"{word}{self._count}"

    def forget(self) -> None:
        """Share no values with what comes next, which may be reached without what was before."""
        self._known = {}

    def constant(self, type: Type, number: float) -> Value:
        """A number, the same in all lanes of a vector.

        Raises:
            TypeError: An integer is to have a fraction.
        """
        if type.scalar != "float" and not isinstance(number, int):
            raise TypeError(f"{number!r} is no constant of type {type}")
        return Value(self, type, literal(type, number))
