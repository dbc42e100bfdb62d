"""Kernels are written with typed values and called with named arguments."""

import ast
import ctypes
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from mhnet_video.engines.llvm.scheduler import Kernels, Program
from mhnet_video.kernels import llvm_operations
from mhnet_video.kernels.llvm_compiler import Library, compile_kernels
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine, host_machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, I32, INDEX

KERNELS = Path(llvm_operations.__file__).parent


def emitter():
    return Emitter(host_machine(), "kernel", x=FLOATS, map=ELEMENTS, count=INDEX)


def test_operands_of_different_types_are_an_error_when_written():
    e = emitter()
    p = e.parameters
    floats, elements = e.load(p.x), e.load(p.map)
    scalar = e.load_scalar(p.x)
    for wrong in (
        lambda: floats + elements,
        lambda: floats + scalar,
        lambda: floats & floats,
        lambda: elements / elements,
        lambda: elements + 0.5,
        lambda: p.count + elements,
        lambda: p.x + floats,
        lambda: p.x * p.count,
        lambda: e.fma(floats, floats, elements),
        lambda: e.select(floats, floats, floats),
        lambda: e.select(floats > 0.0, floats, elements),
        lambda: e.load(floats),
        lambda: e.store(floats, p.map),
        lambda: e.store(elements, p.x),
        lambda: elements.bits_as(F32),
        lambda: e.either(p.count > 0, lambda: [floats], lambda: [elements]),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert (floats + 0.5 * floats).type is e.floats
    assert (elements + 1).type is e.integers
    assert (floats > 0.0).type is llvm_operations.I1.vector(e.machine.lanes)


def test_a_loop_carries_what_it_began_with():
    e = emitter()
    total = [e.zero()]
    with pytest.raises(TypeError, match="merges"):
        for i in e.loop(0, e.parameters.count, carry=total):
            total[0] = e.load(e.parameters.map + i)
    total = [e.zero()]
    with pytest.raises(ValueError):
        for _ in e.loop(0, e.parameters.count, carry=total):
            total.append(e.zero())


def test_a_kernel_has_no_other_parameters():
    with pytest.raises(AttributeError, match="no parameter y"):
        _ = emitter().parameters.y


def test_arguments_are_bound_by_name():
    signature = emitter().signature
    bound = signature.bind({"count": [5, 6], "map": 2, "x": 1}, 2)
    assert bound.dtype.names == ("x", "map", "count")
    assert bound.tolist() == [(1, 2, 5), (1, 2, 6)]
    with pytest.raises(TypeError, match="lacks x and has no parameter y"):
        signature.bind({"count": 5, "map": 2, "y": 1})


def cut(e, total, limit):
    is_above = e.reduce("or", total > limit)
    return e.either(is_above, lambda: [e.minimum(total, limit)], lambda: [total * 0.5])[0]


def clamped(machine: Machine, name: str, limit: float) -> Emitter:
    """Sums of x over rows, cut at a limit where they are above it, halved where they are not."""
    e = Emitter(
        machine, name, x=FLOATS, out=FLOATS, rows=INDEX, width=INDEX, first=INDEX, end=INDEX
    )
    p = e.parameters
    for column in e.loop(p.first, p.end, machine.lanes):
        total = [e.zero()]
        for row in e.loop(0, p.rows, carry=total):
            total[0] = total[0] + e.load(p.x + (row * p.width + column))
        value = cut(e, total[0], limit)
        e.store(value, p.out + column)
        with e.when(column.equals(0)):
            e.store(e.constant(F32, -1.0), p.out)
    return e


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_written_is_what_runs(parts):
    machine = host_machine()
    lanes = machine.lanes
    x = np.random.default_rng(0).random((5, 4 * lanes), np.float32)
    x[:, 2 * lanes :] *= 0.25
    out = np.zeros(4 * lanes, np.float32)
    emitted = clamped(machine, "clamped", 1.5)
    library = Library(machine, compile_kernels(machine, [emitted]))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library.addresses["clamped"])
    edges = [4 * lanes * part // parts for part in range(parts + 1)]
    calls = emitted.signature.bind(
        {
            "x": x.ctypes.data,
            "out": out.ctypes.data,
            "rows": len(x),
            "width": x.shape[1],
            "first": edges[:-1],
            "end": edges[1:],
        },
        parts,
    )
    for part in range(parts):
        call(calls[part : part + 1].ctypes.data)
    sums = x.sum(0).reshape(4, lanes)
    expected = np.where((sums > 1.5).any(1, keepdims=True), np.minimum(sums, 1.5), sums * 0.5)
    expected[0, 0] = -1
    np.testing.assert_allclose(out.reshape(4, lanes), expected, rtol=1e-6)


def test_a_step_takes_an_argument_for_each_part():
    kernels = Kernels(host_machine())
    program = Program(kernels, 1)
    kernel = kernels.kernel(clamped, 1.5)
    calls = program.add(kernel, [(0, 16), (16, 32)], x=[7, 8], out=9, rows=5, width=32)
    assert calls["x"].tolist() == [7, 8] and calls["out"].tolist() == [9, 9]
    assert calls["first"].tolist() == [0, 16] and calls["end"].tolist() == [16, 32]
    with pytest.raises(TypeError, match="lacks width"):
        program.add(kernel, x=7, out=9, rows=5)


def test_instructions_are_written_in_one_table():
    """No text of LLVM IR stands in a kernel: names of values have %, names of functions @."""
    emitters = {"llvm_operations.py", "llvm_values.py", "llvm_ir.py"}
    files = [path for path in KERNELS.glob("llvm_*.py") if path.name not in emitters]
    assert len(files) > 10
    for path in files:
        tree = ast.parse(path.read_text())
        documents = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_text = any(mark in node.value for mark in ("%", "@", "ptr ", "i64 "))
                assert id(node) in documents or not is_text, f"{path.name}: {node.value}"


def test_vectors_of_a_type_are_one_object():
    assert F32.vector(8) is F32.vector(8).vector(4).vector(8)
    assert F32.vector(8).lane() is F32 and F32.vector(0) is F32
    assert str(I32.vector(8)) == "<8 x i32>"
