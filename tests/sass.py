"""Reads machine code of NVIDIA GPUs, as cuobjdump prints it, for one hazard of sm_90.

A product of a warp group runs beside the instructions that follow it. Where its first factor lies
in registers, they must keep their values until the program has waited for the product. ptxas 12.8
does not always see to that in loops that Triton pipelines: the next round writes the registers, and
what the product reads then is a matter of luck.
"""

import re
from dataclasses import dataclass, field

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_TARGET = re.compile(r"0x([0-9a-f]+)")
_REGISTER = re.compile(r"(?<![\w])R(\d+)")
_WITHOUT_RESULT = ("ST", "RED", "BAR", "BRA", "EXIT", "RET", "NOP", "WARP", "DEPBAR", "LDGDEPBAR")
_WITHOUT_RESULT += ("LDGSTS", "R2UR", "MEMBAR", "ERRBAR", "FENCE", "BSYNC", "BSSY", "CALL", "SYNCS")
_WITHOUT_RESULT += ("UBLK", "UTMA", "CCTL", "YIELD", "BREAK", "R2P", "PLOP3", "VOTEU", "NANOSLEEP")
# a queue of more products than that would not end
_MOST_GROUPS = 8


@dataclass(frozen=True)
class Instruction:
    """One line of machine code."""

    address: int
    is_conditional: bool
    operation: str
    """With its suffixes."""
    operands: str

    def __str__(self) -> str:
        return f"{self.address:#06x} {self.operation} {self.operands}"

    @property
    def written(self) -> frozenset[int]:
        """Registers that it writes."""
        name = self.operation.split(".")[0]
        if name.startswith((*_WITHOUT_RESULT, "U")) or "SETP" in name:
            return frozenset()
        for operand in self.operands.split(","):
            found = re.fullmatch(r"\s*R(\d+)(?:\.\w+)*\s*", operand)
            if found:
                first = int(found[1])
                return frozenset(range(first, first + self._width(name)))
            # predicates may come before the register
            if not re.fullmatch(r"\s*!?U?P(T|\d+)\s*", operand):
                break
        return frozenset()

    def _width(self, name: str) -> int:
        """How many registers its result has."""
        if name == "HGMMA":
            shape = re.search(r"64x(\d+)x", self.operation)
            assert shape is not None
            return int(shape[1]) // 2
        parts = self.operation.split(".")
        if name in ("LDSM", "HMMA", "MOVM"):
            return 4 if parts[-1] == "4" or name == "HMMA" else 2
        if "128" in parts:
            return 4
        if "64" in parts or "WIDE" in parts or name in ("DADD", "DMUL", "DFMA", "DMNMX"):
            return 2
        return 1

    @property
    def first_factor(self) -> frozenset[int]:
        """Registers of the first factor of a product of a warp group; none if it is in memory."""
        found = re.match(r"R\d+, R(\d+), gdesc", self.operands)
        if self.operation.split(".")[0] != "HGMMA" or found is None:
            return frozenset()
        return frozenset(range(int(found[1]), int(found[1]) + 4))


@dataclass
class _Pending:
    """Registers of products that may still run: those of complete groups, then the open one."""

    groups: tuple[frozenset[int], ...] = ()
    open: frozenset[int] = field(default_factory=frozenset)

    @property
    def registers(self) -> frozenset[int]:
        return self.open.union(*self.groups)

    def after(self, line: Instruction) -> "_Pending":
        name = line.operation.split(".")[0]
        if name == "HGMMA":
            held = self.open | line.first_factor
            if "gsb0" in line.operands:
                return _Pending((*self.groups, held)[-_MOST_GROUPS:])
            return _Pending(self.groups, held)
        if line.operation.startswith("WARPGROUP.DEPBAR"):
            left = int(_TARGET.findall(line.operands)[-1], 16)
            return _Pending(self.groups[-left:] if left else (), self.open)
        return self

    def key(self) -> tuple[tuple[frozenset[int], ...], frozenset[int]]:
        return self.groups, self.open


def instructions(text: str) -> list[Instruction]:
    """The lines of one kernel.

    Args:
        text: What `cuobjdump -sass` prints.
    """
    found = (_LINE.match(line) for line in text.splitlines())
    return [
        Instruction(int(each[1], 16), each[2] is not None, each[3], each[4])
        for each in found
        if each
    ]


def overwritten_factors(text: str) -> list[str]:
    """Instructions that overwrite the first factor of a product that may not have read it yet.

    Every way through the program is followed, with the products that are not waited for.

    Args:
        text: What `cuobjdump -sass` prints.

    Returns:
        The instructions, in their order.
    """
    lines = instructions(text)
    position = {line.address: number for number, line in enumerate(lines)}
    found: set[int] = set()
    todo = [(0, _Pending())]
    seen = set()
    while todo:
        number, pending = todo.pop()
        while number < len(lines):
            if (number, pending.key()) in seen:
                break
            seen.add((number, pending.key()))
            line = lines[number]
            if line.written & pending.registers:
                found.add(number)
            pending = pending.after(line)
            name = line.operation.split(".")[0]
            if name in ("BRA", "CALL", "BSSY"):
                targets = _TARGET.findall(line.operands)
                if name != "BSSY" and targets:
                    todo.append((position[int(targets[-1], 16)], pending))
                if name == "BRA" and not line.is_conditional and not _has_condition(line):
                    break
            if name in ("EXIT", "RET") and not line.is_conditional:
                break
            number += 1
    return [str(lines[number]) for number in sorted(found)]


def _has_condition(line: Instruction) -> bool:
    return re.match(r"!?U?P\w+,", line.operands) is not None


def products_from_registers(text: str) -> int:
    """How many products of warp groups have their first factor in registers."""
    return sum(bool(line.first_factor) for line in instructions(text))
