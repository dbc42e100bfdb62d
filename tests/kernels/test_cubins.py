"""What Triton 3.7.1 compiles gives right results on a GPU, whatever Triton is on its machine."""

import json
import os
import sys
from pathlib import Path

import cubins
import processes
import pytest
import torch

from mhnet_video.kernels import map_reference

triton = pytest.importorskip("triton")

TESTS = Path(__file__).parents[1]
RUNS = 20
"""Runs of each program, which must give the same in every bit."""


def run(*command):
    """Run a script as a process: here Triton may interpret."""
    paths = os.pathsep.join(map(str, [TESTS, TESTS.parent]))
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": paths}
    processes.run([sys.executable, *command], env=environment, check=True, seconds=240)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder that came along, or what the Triton of this machine makes, if that is one."""
    if any(cubins.FOLDER.glob("*.cubin")):
        return cubins.FOLDER
    if not triton.__version__.startswith("3.7"):
        pytest.skip(f"no {cubins.FOLDER}: make it with Triton 3.7.1, python tests/cubins.py")
    folder = tmp_path_factory.mktemp("cubins")
    run(TESTS / "cubins.py", folder)
    return folder


@pytest.mark.cuda
@pytest.mark.parametrize("case", cubins.CASES, ids=str)
def test_products_from_registers_are_right(programs, case):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("the programs are those of sm_90")
    x, weight, bias, out = cubins.tensors(case, "cuda")
    launch = cubins.launch_of(case, x, weight, bias, out)
    program = cubins.Program(programs, cubins.name_of(launch))
    wide = x.double(), weight.double(), bias.double()
    expected = map_reference.linear(*wide, True, case["gate"], None, [], 1e-6)
    found = []
    for _ in range(RUNS):
        out.fill_(float("nan"))
        program.run(launch)
        found.append(out.clone())
    assert all(torch.equal(found[0], each) for each in found)
    error = (found[0].double() - expected).square().mean().sqrt()
    assert float(error / expected.square().mean().sqrt()) < 0.006


CHECK = """
import ctypes, json, pathlib, sys
import cubins
from mhnet_video.kernels import dispatch

folder, (case, *_) = pathlib.Path(sys.argv[1]), cubins.CASES
(name,) = cubins.build(folder, [case])
with dispatch.on_cpu():
    launch = cubins.launch_of(case, *cubins.tensors(case, "cpu"))
assert cubins.name_of(launch) == name, "the program would not be found"
facts = json.loads((folder / f"{name}.json").read_text())
facts["sizes"] = [ctypes.sizeof(each) for each in cubins.packed(launch, facts["parameters"])]
facts["expected"] = cubins.parameter_sizes((folder / f"{name}.cubin").read_bytes())
(folder / "facts").write_text(json.dumps(facts))
"""


@pytest.mark.slow
def test_a_program_takes_the_parameters_that_it_is_given(tmp_path):
    """Their number, order and sizes, as NVIDIA's tool reads them."""
    run("-c", CHECK, tmp_path)
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["sizes"] == facts["expected"] and len(facts["sizes"]) > 6
    assert facts["symbol"] == "linear_kernel" and facts["shared"] > 0


def test_the_reference_of_the_programs_is_not_their_input():
    x, weight, bias, _ = cubins.tensors(cubins.CASES[1], "cpu")
    wide = x[:, :2].double(), weight.double(), bias.double()
    found = map_reference.linear(*wide, True, True, None, [], 1e-6)
    assert found.shape == (1, 2, cubins.SIZE[2], cubins.CASES[1]["outputs"])
    assert 0.5 < float(found.std()) < 5
