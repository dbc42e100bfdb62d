"""The compiler of kernels: LLVM, by llvmlite."""

import ctypes
from collections.abc import Iterable, Sequence

import llvmlite.binding as llvm

from mhnet_video.kernels.llvm_cache import ObjectFile
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_run import run_program


def compile_kernels(machine: Machine, emitters: Sequence[Emitter]) -> ObjectFile:
    """Compile kernels, and the loop that runs programs of them.

    Args:
        machine: What they are made for.
        emitters: The kernels.
    """
    # no passes over the text: they took longer than the code generator, and gained nothing
    code = _target(machine).emit_object(_module(machine, emitters))
    return ObjectFile({each.signature.name: each.signature for each in emitters}, code)


def assembly(machine: Machine, emitters: Sequence[Emitter]) -> str:
    """The same as text, to be read.

    Args:
        machine: As for `compile_kernels`; may be one of another system.
        emitters: The kernels.
    """
    return _target(machine).emit_assembly(_module(machine, emitters))


def _module(machine: Machine, emitters: Sequence[Emitter]) -> llvm.ModuleRef:
    """What is compiled: the kernels, and the loop that runs programs of them."""
    target = _target(machine)
    triple = machine.triple or llvm.get_process_triple()
    runner, declarations = run_program(machine, triple)
    texts = [runner]
    for emitter in emitters:
        text, needed = emitter.text()
        texts.append(text)
        declarations |= needed
    width = 32 * machine.lanes
    attributes = (
        f'attributes #0 = {{ nounwind "prefer-vector-width"="{width}" '
        f'"min-legal-vector-width"="{width}" }}'
    )
    module = llvm.parse_assembly("\n".join([*sorted(declarations), *texts, attributes]))
    module.triple = triple
    module.data_layout = str(target.target_data)
    return module


class Library:
    """Compiled kernels in memory, ready to be called.

    Args:
        machine: What they were made for.
        compiled: The object file that they are in.
    """

    def __init__(self, machine: Machine, compiled: ObjectFile) -> None:
        self._object = llvm.ObjectFileRef.from_data(compiled.code)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(machine))
        self._engine.add_object_file(self._object)
        self._engine.finalize_object()
        self.addresses = self._addresses(compiled.signatures)
        """The address of each kernel's calling function, valid while this object lives.

        The calling function takes the address of arguments bound by the kernel's `Signature`.
        """
        address = self._engine.get_function_address("run_program")
        self.run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)(address)
        """llvm_run.run_program; it holds no lock."""

    def _addresses(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self._engine.get_function_address(f"{name}.call") for name in names}


def _target(machine: Machine) -> llvm.TargetMachine:
    """LLVM's code generator for a machine."""
    if machine.triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        other = llvm.Target.from_triple(machine.triple)
        return other.create_target_machine(cpu=machine.target, opt=3)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = machine.target, ""
    if not cpu:
        cpu = llvm.get_host_cpu_name()
        features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, jit=True
    )
