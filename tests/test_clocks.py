"""What waits for ever is one failed test, whose stack is told, and the tests after it run."""

import shutil
import sys
from pathlib import Path

import processes
import pytest

pytest.importorskip("pytest_timeout", reason="no pytest-timeout")
pytestmark = pytest.mark.slow
HERE = Path(__file__).parent

HANGING = """
import subprocess, sys, threading
import processes, pytest

def wait_for_ever():
    threading.Event().wait()

def test_waits():
    wait_for_ever()

def test_waits_again():
    try:
        wait_for_ever()
    finally:
        wait_for_ever()

@pytest.fixture
def held():
    yield
    wait_for_ever()

def test_fails_and_is_held(held):
    raise ValueError

@pytest.mark.timeout(60)
def test_a_child_waits():
    code = "import time\\ndef wait_here(): time.sleep(99)\\nwait_here()"
    processes.run([sys.executable, "-c", code], seconds=4)

@pytest.mark.timeout(60)
def test_a_childs_child_holds_the_output():
    assert processes.run(["sh", "-c", "(sleep 20; echo late) & echo done"]).stdout == "done\\n"

def test_goes_on():
    pass
"""

STUCK = """
import ctypes, signal

def test_c_code_never_comes_back():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    ctypes.PyDLL(None).sleep(99)
"""

LEFT = """
import threading

def test_leaves_a_thread():
    threading.Thread(target=threading.Event().wait).start()
"""


@pytest.fixture
def run(tmp_path):
    """Runs tests with the clocks of these here, set to a second but for the last resort."""
    (tmp_path / "tests").mkdir()
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    shutil.copy(HERE / "processes.py", tmp_path / "tests")

    def run(code, last_seconds):
        text = (HERE / "conftest.py").read_text()
        for name in ("AGAIN", "C_CODE", "EXIT"):
            assert f"\n{name}_SECONDS = " in text
            seconds = last_seconds if name in ("C_CODE", "EXIT") else 1
            text = text.replace(f"\n{name}_SECONDS = ", f"\n{name}_SECONDS = {seconds}  # ")
        (tmp_path / "tests" / "conftest.py").write_text(text)
        (tmp_path / "tests" / "test_it.py").write_text(code)
        command = [sys.executable, "-m", "pytest", "--timeout=1", "tests"]
        return processes.run(command, cwd=tmp_path)

    return run


def test_a_test_that_hangs_fails(run):
    done = run(HANGING, 60)
    assert done.returncode == 1
    assert "4 failed, 2 passed, 1 error in " in done.stdout.splitlines()[-1]
    assert "in wait_here" in done.stdout  # where the child was


@pytest.mark.parametrize(
    ("code", "said"), [(STUCK, "test_c_code_never_comes_back"), (LEFT, "1 passed in ")]
)
def test_what_cannot_be_interrupted_ends_the_run(code, said, run):
    done = run(code, 1)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    assert "Timeout (0:00:0" in done.stderr and 'File "' in done.stderr
