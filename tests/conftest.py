"""What every test may use; also makes Triton run in its interpreter where there is no CUDA."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before the first import of triton

if torch.cuda.is_available():
    # what the kernels are judged by keeps float32's precision
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # a GPU machine that lost its driver must fail, not pass by skipping
    if torch.cuda.is_available() or os.environ.get("MHNET_REQUIRE_CUDA") == "1":
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture(autouse=True)
def random_state():
    """Every test starts from the same seeds and leaves the generators as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The pictures and clips to tune on, which are not part of the repository."""
    path = Path(os.environ.get("MHNET_DATA") or ROOT.parent / "shared" / "data")
    if not (path / "dev").is_dir():
        pytest.skip(f"no data at {path}; MHNET_DATA names another place")
    return path
