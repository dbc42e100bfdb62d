"""What every test may use; also makes Triton run in its interpreter where there is no CUDA."""

import atexit
import faulthandler
import os
import random
import shutil
import signal
import sys
import tempfile
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path

# Before the first import of torch. Its threads spin while they wait for one that has lost its core
# to another process: beside a training run a test that takes 3 s took 40, and 196 beside several.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# a pool of compilers would outlive those who started it
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# the processes of a run share compiled kernels with each other, and with nothing else
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="mhnet-cache-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import numpy as np
import processes
import pytest
import torch

from mhnet_video import locator

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before the first import of triton

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # each core has a worker

if torch.cuda.is_available():
    # what the kernels are judged by keeps float32's precision
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROOT = Path(__file__).parent.parent

# cameras, windows and browsers run by the clock
BY_THE_CLOCK = {ROOT / "tests" / "live", ROOT / "tests" / "app"}

# each case of these is of another file or document
WHOLE = {"test_structure.py", "test_readme.py", "test_examples.py"}

# tests take helpers from one another by name, whichever folder they are in
sys.path += sorted({str(path.parent) for path in ROOT.glob("tests/*/**/test_*.py")})

# A test that waits for ever fails after `timeout` seconds (pyproject.toml), with the stacks of all
# threads. What waits again in a `finally` is interrupted again every so often; where that does not
# help, as in C code that never comes back, the run ends, and tells where it was.
AGAIN_SECONDS = 30
C_CODE_SECONDS = 120
EXIT_SECONDS = 120
_ALARM = pytest.StashKey()
_STDERR = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    told = "run one case of each test that has several, for all but the tests of the whole tree"
    parser.addoption("--first-cases", action="store_true", help=told)
    # a GPU machine may lack pytest-timeout, and settings that nobody knows are errors
    if not pluginmanager.hasplugin("timeout"):
        for name in ("timeout", "timeout_method"):
            parser.addini(name, "of pytest-timeout, which is not here")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(2)  # what a test says is caught, and lost if the run ends


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(item, settings):
    result = yield
    if settings.method == "signal":
        item.stash[_ALARM] = settings.timeout, signal.getsignal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    # The plugin's clock, as pytest's own, stops at the first failure, while what that has left
    # behind is what hangs; and none must strike while pytest itself is at work, which ends the run.
    if _ALARM not in item.stash:
        return (yield)
    seconds, alarm = item.stash[_ALARM]
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    faulthandler.dump_traceback_later(
        seconds + C_CODE_SECONDS, exit=True, file=item.config.stash[_STDERR]
    )
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


pytest_runtest_setup = pytest_runtest_teardown = pytest_runtest_call


def pytest_sessionstart() -> None:
    # CPU engines for one machine go on with each other's kernels, which take a second to compile
    with suppress(ImportError):  # llvmlite is an extra
        from mhnet_video.engines.llvm import engine

        engine.Kernels = cache(engine.Kernels)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # a run of the tests that are alone does not import the others, which takes ten seconds
    if config.option.markexpr != "alone" or not collection_path.match("test_*.py"):
        return None
    is_by_the_clock = BY_THE_CLOCK & set(collection_path.parents)
    return None if is_by_the_clock or "mark.alone" in collection_path.read_text() else True


def pytest_unconfigure(config: pytest.Config) -> None:
    # nor does a thread that a test has left behind hold the run after its last line
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=config.stash[_STDERR])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("first_cases"):
        firsts: dict[str, pytest.Item] = {}
        for item in items:
            key = item.nodeid if item.path.name in WHOLE else item.nodeid.partition("[")[0]
            firsts.setdefault(key, item)
        kept = set(firsts.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = firsts.values()
    for item in items:
        if BY_THE_CLOCK & set(item.path.parents) and not item.get_closest_marker("beside"):
            item.add_marker("alone")
    # a GPU machine that lost its driver must fail, not pass by skipping
    if torch.cuda.is_available() or os.environ.get("MHNET_REQUIRE_CUDA") == "1":
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture
def kernels_run(device):
    """Triton's kernels run, by its interpreter where there is no GPU."""
    from mhnet_video.kernels import dispatch

    with nullcontext() if device.type == "cuda" else dispatch.on_cpu():
        yield


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    processes.end_all()


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


@pytest.fixture(autouse=True)
def no_secret_is_remembered():
    """What one test calls a password is an ordinary word in another's messages."""
    yield
    locator._said.clear()


@pytest.fixture
def nothing_drops(monkeypatch):
    """Frames wait for whoever restores them, however busy the machine is."""
    monkeypatch.setattr("mhnet_video.live.frame_buffer._MAX_BACKLOG", 1_000_000)


@pytest.fixture
def standin(monkeypatch):
    """A restorer in place of live mode's network; its one instance, under one model's name."""
    from standin import LiveStandIn

    from mhnet_video.live import adaptive_restorer

    made = LiveStandIn()
    monkeypatch.setattr(adaptive_restorer, "models_at_hand", lambda *_, **__: ["realtime"])
    monkeypatch.setattr(adaptive_restorer, "Restorer", lambda *_, **__: made)
    return made
