"""The CPU engine's kernels, compiled here for processors of ARM, and read.

They do not run here. What must hold all the same: the code generator takes every kernel, it is
vector code, it calls nothing that a process would lack, and loops keep their vectors in registers.
"""

import re

import pytest

pytest.importorskip("llvmlite")

from test_llvm_engine import CONFIGS, make_network

from mhnet_video.engines.llvm.graph import Graph
from mhnet_video.engines.llvm.motion import Motion
from mhnet_video.engines.llvm.scheduler import Kernels
from mhnet_video.kernels.llvm_cache import KernelCache
from mhnet_video.kernels.llvm_compiler import assembly, compile_kernels
from mhnet_video.kernels.llvm_machine import Machine

PROCESSORS = {
    "a Raspberry Pi 5": "cortex-a76",
    "Graviton2, Ampere Altra": "neoverse-n1",
    "Graviton3, with SVE": "neoverse-v1",
    "Grace, Graviton4, with SVE2": "neoverse-v2",
}
ELF_AARCH64 = 183
"""`e_machine` of the object files. Source: ELF for the Arm 64-bit Architecture, section 5.2."""


def machine(target):
    triple = "aarch64-unknown-linux-gnu"
    return Machine(lanes=4, registers=32, bfloat16=False, name="NEON", target=target, triple=triple)


class Written(Kernels):
    """Kernels that are written and not loaded: they are for another processor."""

    def compile(self):
        return lambda *_: None

    def address(self, name):
        return 0


@pytest.fixture(scope="module")
def emitters(tmp_path_factory):
    """All kernels of the real-time network and of one that sees the glass, and of the alignment."""
    found = {}
    for name in ("realtime", "glass"):
        cache = KernelCache(machine("generic"), tmp_path_factory.mktemp("cache"))
        kernels = Written(machine("generic"), cache)
        Graph(make_network(**CONFIGS[name]), kernels, 64, 96, 2)
        Motion(kernels, 64, 96, 5, 2, moves_all=name == "glass")
        found |= {each.signature.name: each for each in kernels._emitters}
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_kernels_compile_for_arm(emitters, processor):
    text = assembly(machine(PROCESSORS[processor]), emitters)
    parts = re.split(r'^"?([A-Za-z_][^\s:"]*)"?:.*\n', text, flags=re.M)
    functions = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert {each.signature.name for each in emitters} <= functions.keys()
    assert len(re.findall(r"\bfmla\tv\d+\.4s", text)) > 1000
    # calls lead to other kernels, or to what every C library has
    called = set(re.findall(r'^\tbl?\t"?([A-Za-z_][^\s"]*)', text, re.M)) - functions.keys()
    assert called <= {"memcpy", "memset", "memmove"}, called
    for name, body in functions.items():
        lines = body.count("\n")
        kept = len(re.findall(r"^\t(?:ld|st)[rp]\tq\d+.*\[sp", body, re.M))
        assert kept <= 0.1 * lines, f"{name} keeps vectors on the stack: {kept} of {lines} lines"


@pytest.mark.slow
def test_object_files_are_of_that_system(emitters):
    compiled = compile_kernels(machine("neoverse-n1"), emitters)
    assert compiled.code[:4] == b"\x7fELF"
    assert int.from_bytes(compiled.code[18:20], "little") == ELF_AARCH64
    assert len(compiled.signatures) == len(emitters)


def test_another_system_has_other_kernels_on_disk(tmp_path):
    from mhnet_video.kernels.llvm_cache import _key

    assert len({_key(machine(target)) for target in PROCESSORS.values()}) == len(PROCESSORS)
