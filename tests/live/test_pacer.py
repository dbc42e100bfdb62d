"""Live frames at the rate of their source, with a clock of its own."""

import platform
import sys
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import processes
import pytest
from measure_pipeline import resident_megabytes
from waiting import SECONDS

import mhnet_video.live.pacer
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.live.adaptive_quality import Governor, Level, list_levels
from mhnet_video.live.pacer import Pacer
from mhnet_video.memory import give_back

pytestmark = pytest.mark.beside

BUDGET = 0.04
LOOKS = 5 / 16
"""Time of the looks at a frame that passes, by that of restoring it."""
LEVELS = list_levels(["large", "small"])


class Machine:
    """A clock, and a restorer that takes its time on it: a part for the picture, and the rest."""

    def __init__(self, full=0.05):
        self.now = 100.0
        self.full = full
        self.load = 1.0
        self.is_dry = self.is_frozen = False
        self.runs = []
        self.looks = []

    def seconds(self, level):
        return self.load * self.full * (12 if level.model == "large" else 1) * level.scale**2

    def make(self, model):
        machine = self

        class Stand:
            scale = 1.0
            dry = repeated = 0

            def prepare_looks(self, frames, index):
                machine.looks.append(Level(model, self.scale))

            def restore_frame(self, frames, index, *, is_live=False):
                passes = is_live and machine.is_dry
                self.dry += passes and not machine.is_frozen
                self.repeated += passes and machine.is_frozen
                machine.runs.append(Level(model, self.scale))
                machine.now += machine.seconds(machine.runs[-1]) * (LOOKS if passes else 1)
                return frames[index]

        return Stand()


FRAME = Frame((np.zeros((48, 64), np.uint8),), PixelLayout("gray", "gray", 8), 0, Fraction(1, 25))


def pacer(machine, **options):
    return Pacer(
        machine.make,
        ["large", "small"],
        budget_seconds=BUDGET,
        clock=lambda: machine.now,
        run=lambda work: work(),
        **options,
    )


def play(pacer, machine, seconds):
    """Frames at the source's rate for a time; the levels that were used, in order."""
    levels = [pacer.level]
    end = machine.now + seconds
    while machine.now < end:
        begin = machine.now
        pacer.restore([FRAME], 0)
        machine.now = max(machine.now, begin + BUDGET)
        if pacer.level != levels[-1]:
            levels.append(pacer.level)
    return levels


def test_measuring_takes_few_runs_and_leaves_out_the_first():
    machine = Machine(0.05)

    def make(model):
        restorer = machine.make(model)
        run = restorer.restore_frame
        runs = []

        def first_slow(frames, index, **how):
            # it compiles
            machine.load = 1 if runs else 50
            runs.append(index)
            return run(frames, index, **how)

        restorer.restore_frame = first_slow
        return restorer

    chosen = pacer(machine)
    chosen._make = make
    chosen.measure(FRAME)
    assert chosen.level == Level("small", 0.7)
    # which is told before the first frame
    assert chosen.seconds == pytest.approx(0.05 * 0.7**2)
    assert len(machine.runs) <= 2 * 5


def test_it_falls_within_seconds_of_a_load_and_rises_after_it():
    machine = Machine(0.03)
    chosen = pacer(machine)
    chosen.measure(FRAME)
    assert play(chosen, machine, 20) == [Level("small", 1.0)]
    machine.load = 3
    begin = machine.now
    while chosen.level.scale == 1:
        chosen.restore([FRAME], 0)
    assert machine.now - begin < 2.5
    assert machine.seconds(chosen.level) <= BUDGET
    settled = chosen.level
    assert play(chosen, machine, 30) == [settled]
    machine.load = 1
    assert play(chosen, machine, 60)[-1] == Level("small", 1.0)


def test_a_fixed_scale_stays():
    machine = Machine(0.5)
    chosen = pacer(machine, scale=0.5)
    chosen.measure(FRAME)
    assert chosen.level == Level("small", 0.5)
    assert play(chosen, machine, 20) == [Level("small", 0.5)]


def test_other_models_are_measured_again():
    machine = Machine(0.002)
    chosen = pacer(machine)
    chosen.measure(FRAME)
    assert chosen.level == Level("large", 1.0)
    chosen.use(["small"], replace(FRAME))
    assert chosen.level == Level("small", 1.0)


def test_a_level_is_taken_up_when_it_is_ready():
    """Meanwhile frames go on at the old one, and say nothing about the new one."""
    machine = Machine(0.03)
    works = []
    chosen = Pacer(
        machine.make,
        ["small"],
        budget_seconds=BUDGET,
        clock=lambda: machine.now,
        run=works.append,
    )
    chosen.measure(FRAME)
    machine.load = 3
    play(chosen, machine, 10)
    assert chosen.level.scale == 1 and len(works) == 1
    works[0]()
    play(chosen, machine, 0.5)
    assert chosen.level.scale < 1 and len(works) == 1


def test_no_strength_says_nothing_about_the_machine():
    machine = Machine(0.1)
    chosen = pacer(machine)
    chosen.measure(FRAME)
    settled = chosen.level
    machine.load = 0.0
    for _ in range(1000):
        machine.now += BUDGET
        chosen.restore([FRAME], 0, strength=0.0)
    assert chosen.level == settled


@pytest.mark.parametrize("is_frozen", [False, True])
def test_dry_frames_say_nothing_about_the_machine(is_frozen):
    """However little they take, the level stays, and is the right one when a shower begins."""
    machine = Machine(0.05)
    machine.is_frozen = is_frozen
    chosen = pacer(machine)
    chosen.measure(FRAME)
    settled = chosen.level
    assert settled == Level("small", 0.7) and machine.looks == [settled]
    assert play(chosen, machine, 10) == [settled]
    for _ in range(3):
        machine.is_dry = True
        assert play(chosen, machine, 100) == [settled]
        assert chosen.seconds == pytest.approx(machine.seconds(settled) * LOOKS)
        machine.is_dry = False
        assert play(chosen, machine, 4) == [settled]


def test_looks_that_take_too_long_make_it_fall():
    """And stay there: dry frames do not tell that there is room again, those in rain do."""
    machine = Machine(0.03)
    chosen = pacer(machine)
    chosen.measure(FRAME)
    assert play(chosen, machine, 10) == [Level("small", 1.0)]
    machine.is_dry, machine.load = True, 6
    play(chosen, machine, 10)
    fallen = chosen.level
    assert fallen.scale < 1 and machine.seconds(fallen) * LOOKS <= BUDGET
    assert machine.looks[-1] == fallen  # they are ready before it is taken up
    machine.load = 1
    assert play(chosen, machine, 100) == [fallen]
    machine.is_dry = False
    assert play(chosen, machine, 60)[-1] == Level("small", 1.0)


def test_large_pictures_are_first_tried_small():
    machine = Machine(4.0)
    chosen = pacer(machine)
    plane = np.broadcast_to(np.uint8(0), (2160, 3840))
    chosen.measure(replace(FRAME, planes=(plane,)))
    assert max(level.scale for level in machine.runs) < 0.3


def test_the_memory_of_levels_that_are_forgotten_goes_back(monkeypatch):
    given = []
    monkeypatch.setattr(
        mhnet_video.live.pacer, "give_back", lambda: given.append(len(chosen._ready))
    )
    machine = Machine(0.03)
    chosen = pacer(machine)
    chosen.measure(FRAME)
    assert len(chosen._ready) <= 3 and not given
    for load in (1.5, 2.5, 4):
        machine.load = load
        play(chosen, machine, 5)
    assert given == [3] * len(given) and given


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.alone
def test_freed_memory_goes_back():
    blocks = [bytes(4000) for _ in range(20_000)]
    # what lies above keeps the C library from giving back what is below
    last = bytes(4000)
    before = resident_megabytes()
    del blocks
    give_back()
    assert resident_megabytes() < before - 60 and len(last) == 4000


class Held:
    """A pacer with a level that is being made ready until it is let go."""

    def __init__(self):
        self.machine = Machine(0.03)
        self.pacer = Pacer(
            self.machine.make,
            ["small"],
            budget_seconds=BUDGET,
            clock=lambda: self.machine.now,
        )
        self.pacer.measure(FRAME)
        self.pacer._make = self.make
        self.has_begun, self.is_let_go = threading.Event(), threading.Event()
        self.machine.load = 3
        play(self.pacer, self.machine, 3)
        assert self.has_begun.wait(SECONDS)

    def make(self, model):
        self.has_begun.set()
        self.is_let_go.wait(SECONDS)
        return self.machine.make(model)


def test_closing_waits_for_a_level_that_is_made_ready():
    held = Held()
    thread = held.pacer._thread
    assert thread.is_alive()
    restored = len(held.machine.runs)
    threading.Timer(0.2, held.is_let_go.set).start()
    held.pacer.close()
    assert not thread.is_alive()
    # the step that was not begun is left out
    assert len(held.machine.runs) == restored
    play(held.pacer, held.machine, 10)
    assert held.pacer._thread is thread and held.pacer.level.scale == 1
    with pytest.raises(StopIteration):
        held.pacer.measure(FRAME)


def test_closing_does_not_wait_long(monkeypatch):
    monkeypatch.setattr(mhnet_video.live.pacer, "_CLOSE_SECONDS", 0.1)
    held = Held()
    held.pacer.close()
    assert held.pacer._thread.is_alive() and not held.is_let_go.is_set()
    held.is_let_go.set()
    held.pacer._thread.join(SECONDS)
    assert not held.pacer._thread.is_alive()


def test_what_makes_a_level_ready_may_close():
    machine = Machine(0.03)
    chosen = Pacer(
        machine.make,
        ["small"],
        budget_seconds=BUDGET,
        clock=lambda: machine.now,
    )
    chosen.measure(FRAME)
    is_known = threading.Event()

    def make(model):
        is_known.wait(SECONDS)
        chosen.close()
        return machine.make(model)

    chosen._make = make
    machine.load = 3
    play(chosen, machine, 3)
    is_known.set()
    chosen._thread.join(SECONDS)
    assert not chosen._thread.is_alive()


def test_the_end_of_the_process_waits_for_a_level():
    """PyTorch aborts otherwise."""
    code = (
        "import time; from mhnet_video.live import pacer\n"
        "pacer._on_thread(lambda: (time.sleep(0.5), print('ready', flush=True)))\n"
    )
    done = processes.run([sys.executable, "-c", code], check=True)
    assert done.stdout == "ready\n" and not done.stderr


@pytest.mark.parametrize("is_closed", [True, False])
def test_an_engine_that_the_end_of_the_process_stops_says_nothing(is_closed, caplog):
    machine = Machine()
    chosen = pacer(machine)

    class Stopped:
        def restore_frame(self, frames, index, **how):
            chosen._is_closed = is_closed
            raise RuntimeError("cannot schedule new futures after shutdown")

    chosen._make = lambda model: Stopped()
    chosen._prepare(chosen.level, FRAME)
    assert not chosen._ready and bool(caplog.records) is not is_closed


def test_a_level_that_cannot_run_is_left_out_and_told_once(caplog):
    machine = Machine(full=0.001)
    chosen = pacer(machine)
    make, tries = chosen._make, []

    def make_small(model):
        if model == "large":
            tries.append(model)
            raise RuntimeError("CUDA error: out of memory\nand more")
        return make(model)

    chosen._make = make_small
    chosen.measure(FRAME)
    assert chosen.level == Level("small", 1.0) and len(tries) == 1
    chosen.governor = Governor(LEVELS, 0, BUDGET)  # as when the load falls
    for _ in range(20):
        assert chosen.restore([FRAME] * 3, 1) is FRAME
    assert len(tries) == 2 and chosen.governor.level == chosen.level
    (record,) = caplog.records
    assert record.getMessage() == (
        "large at 100 % of the size cannot run here (CUDA error: out of memory): it is left out"
    )
