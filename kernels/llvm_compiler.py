"""The compiler of kernels: LLVM, by llvmlite."""

import ctypes
from collections.abc import Sequence

import llvmlite.binding as llvm

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_run import run_program


class Library:
    """Compiled kernels.

    Args:
        machine: What they are made for.
        emitters: The kernels.
    """

    def __init__(self, machine: Machine, emitters: Sequence[Emitter]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        triple = llvm.get_process_triple()
        runner, declarations = run_program(machine, triple)
        texts = [runner]
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
        names = [emitter.signature.name for emitter in emitters]
        self.addresses = {name: self._engine.get_function_address(f"{name}.call") for name in names}
        """The address of each kernel's calling function, valid while this object lives.

        The calling function takes the address of arguments bound by the kernel's `Signature`.
        """
        address = self._engine.get_function_address("run_program")
        self.run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)(address)
        """llvm_run.run_program; it holds no lock."""
