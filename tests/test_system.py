"""What differs between systems, on systems that are faked."""

import ctypes
import os
import select
import signal
import sys
import threading

import pytest
import torch

from mhnet_video import memory, system
from mhnet_video.cli.terminal import stop_on_signals


@pytest.fixture
def windows(monkeypatch):
    """The names that Python lacks there, and those that it alone has."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(select, "poll", raising=False)
    monkeypatch.delattr(os, "O_NONBLOCK", raising=False)
    for name in ("SIGHUP", "SIGKILL", "pthread_sigmask"):
        monkeypatch.delattr(signal, name, raising=False)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)

    def load(name):
        raise TypeError("argument of type 'NoneType' is not iterable")

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.fixture
def refused(monkeypatch):
    """Renaming that is refused a few times, as where a virus scanner has the file open."""
    left, replace = [3], os.replace

    def refuse(source, destination):
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "Permission denied")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(system, "_PAUSE_SECONDS", 0.0)
    return left


def files(folder):
    new, old = folder / "new", folder / "old"
    new.write_bytes(b"new")
    old.write_bytes(b"old")
    return new, old


def test_a_file_that_is_open_on_windows_is_replaced_when_it_is_closed(windows, refused, tmp_path):
    new, old = files(tmp_path)
    system.replace_file(new, old)
    assert old.read_bytes() == b"new" and not new.exists()


def test_a_file_that_stays_open_is_given_up(windows, refused, tmp_path, monkeypatch):
    refused[0] = 10**9
    monkeypatch.setattr(system, "REPLACE_SECONDS", 0.01)
    new, old = files(tmp_path)
    with pytest.raises(PermissionError):
        system.replace_file(new, old)
    assert (new.read_bytes(), old.read_bytes()) == (b"new", b"old")


def test_elsewhere_a_refusal_is_final(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(PermissionError):
        system.replace_file(*files(tmp_path))
    assert refused == [2]


def test_windows_has_other_signals(windows):
    assert system.ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    assert not system.is_killed(-9) and not system.is_killed(None)
    with system.signals_held_back():
        pass
    before = {number: signal.getsignal(number) for number in system.ending_signals()}
    try:
        system.ignore_ending_signals()
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_closing_the_console_of_windows_ends_a_run_in_order(windows, capfd):
    import threading

    stop = threading.Event()
    with stop_on_signals(stop, "ending"):
        os.kill(os.getpid(), signal.SIGUSR1)  # which stands for SIGBREAK
        assert stop.wait(5)
    assert "ending" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows blocks no signals")
def test_signals_are_held_back_while_a_process_starts():
    with system.signals_held_back():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert set(system.ending_signals()) <= blocked
    assert not set(system.ending_signals()) & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert system.is_killed(-signal.SIGKILL)


def test_without_glibc_memory_is_left_to_the_system(windows):
    memory._trim.cache_clear()
    try:
        assert system.c_function("mallopt") is None
        memory.give_back()
        memory.give_back_large_blocks()
    finally:
        memory._trim.cache_clear()


def test_no_memory_of_a_gpu_goes_back_while_a_graph_is_recorded(monkeypatch):
    given = []
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: given.append(memory.RECORDING.locked() and is_over[0])
    )
    is_over = [False]
    thread = threading.Thread(target=memory.give_back_device_memory)
    with memory.RECORDING:
        thread.start()
        thread.join(0.1)
        is_over[0] = True
    thread.join(5)
    assert given == [True]


def test_a_c_library_without_the_function_is_none(monkeypatch):
    assert system.c_function("no_such_function_anywhere") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        system.open_special(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with system.open_special(path) as file:
        assert os.get_blocking(file.fileno())
        assert not system.is_abandoned(file.fileno())
        os.close(reader)
        assert system.is_abandoned(file.fileno())


def test_on_windows_special_files_open_and_pipes_are_not_asked(windows, tmp_path):
    (tmp_path / "device").write_bytes(b"")
    with system.open_special(tmp_path / "device") as file:
        assert not system.is_abandoned(file.fileno())
        file.write(b"data")
    assert (tmp_path / "device").read_bytes() == b"data"


def test_a_console_without_a_width_has_no_size(monkeypatch, tmp_path):
    class Console:
        def fileno(self):
            return 2

    for size, has in (((80, 24), True), ((0, 0), False)):
        monkeypatch.setattr(os, "get_terminal_size", lambda _, size=size: size)
        assert system.has_terminal_size(Console()) is has
    assert not system.has_terminal_size(None)
    with open(tmp_path / "file", "w") as file:
        monkeypatch.undo()
        assert not system.has_terminal_size(file)


def test_a_shortage_of_a_cpus_memory_is_one():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)  # a petabyte
    assert memory.is_shortage(caught.value)
    assert not memory.is_shortage(RuntimeError("the sizes do not match"))
