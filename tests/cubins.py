"""Machine code of another Triton for a GPU that is not here: built ahead of time, started by CUDA.

`python tests/cubins.py [FOLDER]` compiles the kernels whose products are from registers, with the
Triton that is installed, for sm_90. So a machine with Triton 3.6 runs what 3.7.1 makes of them: its
ptxas once let a loop overwrite the factors of products that still read them. The folder travels
with the tree; `tests/kernels/test_cubins.py` runs what is in it.
"""

import ctypes
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[1] / "build" / "cubins"
"""Where they are."""
CAPABILITY = 90
CASES = [
    {"inputs": inputs, "outputs": outputs, "gate": gate}
    for inputs, outputs in ((128, 256), (256, 512), (512, 512))
    for gate in (False, True)
]
"""Products with LayerNorm and more than 64 inputs: those that were found to be overwritten."""
SIZE = 1, 136, 120
"""Pictures, height and width of the maps."""
_SHARED_LIMIT = 8
"""CUDA's number of the attribute for a kernel's largest dynamic shared memory."""


def tensors(case, device):
    """Map, weight, bias and room for the result, all the same at each call."""
    generator = torch.Generator().manual_seed(case["inputs"])
    rows = case["outputs"] * (1 + case["gate"])
    made = [
        torch.randn(*SIZE, case["inputs"], generator=generator).bfloat16(),
        (torch.randn(rows, case["inputs"], generator=generator) / case["inputs"] ** 0.5).bfloat16(),
        torch.randn(rows, generator=generator),
        torch.full((*SIZE, case["outputs"]), float("nan"), dtype=torch.bfloat16),
    ]
    return [each.to(device) for each in made]


def launch_of(case, x, weight, bias, out):
    """The launch of a case, not started; its sums of the weight are made by PyTorch."""
    from mhnet_video.kernels import dispatch, map_ops

    with dispatch.recording() as launches:
        map_ops.linear(x, weight, bias, norm=True, gate=case["gate"], out=out)
    (launch,) = launches
    return launch


def name_of(launch):
    """The file name of a launch's program, without suffix."""
    from aot import key

    return f"{launch.name}-{hashlib.sha256(key(launch).encode()).hexdigest()[:16]}"


def build(folder, cases=None):
    """Compile the programs of cases, all if None; their names."""
    import triton
    from aot import signature
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for case in cases or CASES:
        launch = launch_of(case, *tensors(case, "meta"))
        types, constants, attributes = signature(launch)
        compiled = triton.compile(
            ASTSource(launch.kernel, types, constants, attributes),
            target=GPUTarget("cuda", CAPABILITY, 32),
            options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
        )
        name = name_of(launch)
        facts = {
            "symbol": compiled.metadata.name,
            "shared": compiled.metadata.shared,
            "triton": triton.__version__,
            "parameters": [kind for kind in types.values() if kind != "constexpr"],
        }
        (folder / f"{name}.cubin").write_bytes(compiled.asm["cubin"])
        (folder / f"{name}.json").write_text(json.dumps(facts))
        names.append(name)
    return names


def packed(launch, kinds):
    """The parameters of a launch as CUDA takes them: those of the kernel, and two pointers.

    Triton adds a pointer to scratch memory and one to that of its profiler; both are not used.
    """
    from aot import signature

    found = []
    names = [name for name, kind in signature(launch)[0].items() if kind != "constexpr"]
    for name, kind in zip(names, kinds, strict=True):
        value = launch.arguments[name]
        if kind.startswith("*"):
            found.append(ctypes.c_uint64(value.data_ptr()))
        else:
            types = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}
            found.append(types[kind](value))
    return [*found, ctypes.c_uint64(0), ctypes.c_uint64(0)]


def parameter_sizes(cubin):
    """Bytes of each parameter of the kernel in a file, in order, by NVIDIA's own tool."""
    from aot import _TOOLS

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_TOOLS / "cuobjdump", "-elf", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.findall(r"Ordinal\s*:\s*(0x\w+).*?Size\s*:\s*(0x\w+)", text, re.DOTALL)
    return [size for _, size in sorted((int(a, 16), int(b, 16)) for a, b in parts)]


class Program:
    """A program in a folder, on the current GPU."""

    def __init__(self, folder, name):
        facts = json.loads((folder / f"{name}.json").read_text())
        self.kinds, self.shared = facts["parameters"], facts["shared"]
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        image = (folder / f"{name}.cubin").read_bytes()
        self._check("cuModuleLoadData", ctypes.byref(self._module), image)
        symbol = facts["symbol"].encode()
        self._check("cuModuleGetFunction", ctypes.byref(self._function), self._module, symbol)
        self._check("cuFuncSetAttribute", self._function, _SHARED_LIMIT, self.shared)

    def run(self, launch):
        """Start it on PyTorch's current stream, with the arguments of a launch."""
        values = packed(launch, self.kinds)
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(each) for each in values))
        grid = (*launch.grid, 1, 1)[:3]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        block = 32 * launch.num_warps, 1, 1, self.shared
        self._check("cuLaunchKernel", self._function, *grid, *block, stream, pointers, None)

    def _check(self, name, *arguments):
        status = getattr(self._cuda, name)(*arguments)
        assert status == 0, f"{name}: CUDA error {status}"


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    sys.stdout.write("\n".join(build(where)) + "\n")
