"""Compile launches for GPUs that are not here, and read what the machine code needs.

Not a test by itself: Triton decides when it is imported whether it interprets, so this runs in a
process of its own, `python tests/aot.py JSON`, with a list of cases as `CASES` in test_aot.py.
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path

import sass
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.uint8: "*u8",
}
_FROM_REGISTERS = re.compile(r"wgmma\.mma_async\S*\s+\{[^}]*\},\s*\{")
"""A product of a warp group whose first factor lies in registers, in PTX."""
_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


def signature(launch):
    """The types, constants and alignments that Triton's own launcher would find."""
    types, constants, attributes = {}, {}, {}
    fixed = {each.name for each in launch.kernel.params if each.do_not_specialize}
    for index, name in enumerate(launch.kernel.arg_names):
        value = launch.arguments.get(name, launch.constants.get(name))
        is_constant = name in launch.constants or value is None
        is_one = isinstance(value, int) and value == 1 and name not in fixed
        if is_constant or is_one:
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            types[name] = _TYPES[value.dtype]
            if name not in fixed:
                attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            types[name] = "fp32"
        else:
            types[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0 and name not in fixed:
                attributes[index,] = [["tt.divisibility", 16]]
    return types, constants, attributes


def key(launch):
    """Launches with one key are one program."""
    return repr((launch.name, *signature(launch), launch.num_warps, launch.num_stages))


def compile_for(launch, capability):
    """Compile; registers, spilled bytes and shared memory of the result."""
    types, constants, attributes = signature(launch)
    compiled = triton.compile(
        ASTSource(launch.kernel, types, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
    )
    ptx = compiled.asm["ptx"]
    # machine code is read where it matters, as that takes longer than to compile
    has_factors = _FROM_REGISTERS.search(ptx) is not None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        told = subprocess.run(
            [_TOOLS / "cuobjdump", "-res-usage", *["-sass"] * has_factors, file.name],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", told))
    return {
        "registers": int(found["REG"]),
        "spilled": int(found["STACK"]) + int(found["LOCAL"]),
        "shared": compiled.metadata.shared,
        "tensor_cores": "mma" in ptx,
        "has_factors": has_factors,
        "products_from_registers": sass.products_from_registers(told),
        "overwritten": sass.overwritten_factors(told),
        "ordered": is_ordered(ptx),
    }


def is_ordered(ptx):
    """Whether a program that comes last reads only what the others have stored before; see is_last.

    None where programs do not count themselves.
    """
    if "atom." not in ptx:
        return None
    before, behind = ptx.split("atom.", 1)
    # every thread has stored, one thread counts and tells the others, which pass by their caches
    stored = before.rfind("bar.sync") > before.rfind("st.global") > 0
    told = 0 < behind.find("bar.sync") < behind.find("ld.global.cg")
    return stored and told and behind.startswith("global.gpu.acq_rel.")


def row_of(launch, capability):
    """What is told of a launch."""
    constants = {k: v for k, v in launch.constants.items() if v is not False}
    return {
        "kernel": launch.name,
        "capability": capability,
        "warps": launch.num_warps,
        "constants": {k: str(v) for k, v in constants.items()},
        **compile_for(launch, capability),
    }


def main():
    from test_memory_traffic import launches_of  # the same plans whose bytes are counted

    seen = {}
    for case in json.loads(sys.argv[1]):
        for launch in launches_of(**case["plan"]):
            if case.get("only") and launch.name not in case["only"]:
                continue
            for capability in case["capabilities"]:
                seen.setdefault((key(launch), capability), (launch, capability))
    # a process for each core, forked: launches hold what cannot be sent
    _WANTED.extend(seen.values())
    fork = multiprocessing.get_context("fork")
    with futures.ProcessPoolExecutor(len(os.sched_getaffinity(0)), fork) as pool:
        json.dump(list(pool.map(_nth_row, range(len(_WANTED)))), sys.stdout)


_WANTED = []


def _nth_row(number):
    return row_of(*_WANTED[number])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent / "engines" / "triton"))
    main()
