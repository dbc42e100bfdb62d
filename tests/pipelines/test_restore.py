"""Three threads, whatever happens: errors, interrupts, kills and long clips."""

import gc
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import probe
import processes
import pytest
from clips import Audio, Clip, Video, every
from standin import Held, StandIn
from waiting import SECONDS, Ticks, is_waiting_in, wait_until

import mhnet_video.media.writing.writer
from mhnet_video.config import Box, RestoreConfig
from mhnet_video.errors import MHNetVideoError, ReadError, WriteError
from mhnet_video.frame import Frame, Pair
from mhnet_video.media.prefetch import Prefetcher
from mhnet_video.media.reading.decoder import Decoder
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.pipelines.restore import Progress, losses_of_network, restore_video

HERE = Path(__file__).parents[1]
LONG = Video(times=every(40, 200), gop=25)
SOUND = Audio(codec="ac3", seconds=8)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a run met, its threads are gone soon after."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def every_frame_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is between any two frames, by the clock that spaces out the news."""
    monkeypatch.setattr("mhnet_video.pipelines.restore.time", Ticks())


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    return Clip(video=(LONG,), audio=(SOUND,)).make(tmp_path)


def left(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_reader_restorer_and_writer_have_threads_of_their_own(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {"decode": set(), "restore": set(), "encode": set()}

    class Watching(StandIn):
        def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
            for item in super().pairs(items, **how):
                seen["restore"].add(threading.current_thread().name)
                yield item

    def watch(owner: Any, name: str, kind: str) -> None:
        plain = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            seen[kind].add(threading.current_thread().name)
            return plain(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    watch(Decoder, "_decode", "decode")
    watch(mhnet_video.media.writing.writer.VideoWriter, "write", "encode")
    restore_video(long_clip, tmp_path / "out.mp4", restorer=Watching())
    assert [len(names) for names in seen.values()] == [1, 1, 1]
    everyone = set.union(*seen.values())
    assert len(everyone) == 3
    assert threading.current_thread().name not in everyone


def frames_in_memory() -> int:
    gc.collect()
    return sum(type(item) is Frame for item in gc.get_objects())


def wait_for_a_full_queue(name: str) -> None:
    """Wait until a thread has filled its queue, so that it waits for who takes from it; or ends."""

    def is_at_rest() -> bool:
        threads = [thread for thread in threading.enumerate() if thread.name == name]
        return all(is_waiting_in(thread, Prefetcher._put) for thread in threads)

    wait_until(is_at_rest)


def test_the_reader_waits_for_the_restorer(long_clip: Path, tmp_path: Path) -> None:
    restorer = Held(0)
    run = threading.Thread(
        target=restore_video,
        args=(long_clip, tmp_path / "out.mp4"),
        kwargs={"restorer": restorer},
        daemon=True,
    )
    run.start()
    assert restorer.reached.wait(SECONDS)
    wait_for_a_full_queue("mhnet-video reader")
    count = frames_in_memory()
    restorer.go_on.set()
    run.join(SECONDS)
    # all 200 would be decoded by then
    assert 1 <= count <= 40
    assert len(probe.probe(tmp_path / "out.mp4").video.times) == 200


def test_the_restorer_waits_for_the_writer(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = StandIn()
    plain = mhnet_video.media.writing.writer.VideoWriter.write
    seen = []

    def slow(self: Any, item: Any) -> None:
        if isinstance(item, Frame) and not seen:
            wait_for_a_full_queue("mhnet-video restorer")
            seen.append(restorer.seen)
        plain(self, item)

    monkeypatch.setattr(mhnet_video.media.writing.writer.VideoWriter, "write", slow)
    restore_video(long_clip, tmp_path / "out.mp4", restorer=restorer)
    assert 1 <= seen[0] <= 40
    assert restorer.seen == 200


def test_the_stages_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three meet in the middle of the clip, each with a frame of its own at hand."""
    source = Clip(video=(Video(times=every(40, 60)),)).make(tmp_path)
    meeting = threading.Barrier(3, timeout=60)

    def meet_at(number: int, plain: Any) -> Callable[..., Any]:
        calls = itertools.count()

        def call(*arguments: Any) -> Any:
            if next(calls) == number:
                meeting.wait()
            return plain(*arguments)

        return call

    monkeypatch.setattr(Decoder, "_frame", meet_at(40, Decoder._frame))
    monkeypatch.setattr(FrameEncoder, "encode", meet_at(20, FrameEncoder.encode))
    restorer = StandIn(meet_at(30, lambda frame: frame))
    assert restore_video(source, tmp_path / "out.mp4", restorer=restorer).frames == 60
    assert meeting.n_waiting == 0 and not meeting.broken


def test_progress_is_told_as_it_goes(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least 0.04 seconds are between any two frames, by its clock."""
    monkeypatch.setattr("mhnet_video.pipelines.restore.time", Ticks(0.04))
    told: list[Progress] = []
    restore_video(long_clip, tmp_path / "out.mp4", restorer=StandIn(), on_progress=told.append)
    assert told[-1].frames == 200
    assert told[-1].total == 200
    assert told[-1].position_seconds == pytest.approx(199 * 0.04, abs=0.01)
    assert [item.frames for item in told] == sorted(item.frames for item in told)
    # often enough for a bar that moves, and no more often
    assert len(told) >= 50
    times = [item.seconds for item in told[:-1]]
    assert min(after - before for before, after in pairwise(times)) >= 0.1


def test_progress_without_a_frame_count(tmp_path: Path) -> None:
    source = Clip(name="clip.h264", video=(Video(),)).make(tmp_path)
    told: list[Progress] = []
    restore_video(source, tmp_path / "out.mp4", restorer=StandIn(), on_progress=told.append)
    assert told[-1].frames == 10


def test_an_error_of_the_restorer_ends_all(long_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the restorer broke"):
        restore_video(long_clip, tmp_path / "out.mp4", restorer=StandIn(fail_at=60))
    assert not (tmp_path / "out.mp4").exists()
    for name in left(tmp_path):
        assert len(probe.probe(tmp_path / name).video.times) >= 20


def test_an_error_of_the_restorer_at_the_first_frame_ends_all(
    long_clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="the restorer broke"):
        restore_video(long_clip, tmp_path / "out.mp4", restorer=StandIn(fail_at=0))
    assert left(tmp_path) == ["clip.mp4"]


def test_an_error_of_the_reader_ends_all(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Decoder._frame
    count = 0

    def fail(self: Decoder, picture: Any) -> Any:
        nonlocal count
        count += 1
        if count == 60:
            raise ReadError("the reader broke")
        return plain(self, picture)

    monkeypatch.setattr(Decoder, "_frame", fail)
    with pytest.raises(ReadError, match="the reader broke"):
        restore_video(long_clip, tmp_path / "out.mp4", restorer=StandIn())
    assert not (tmp_path / "out.mp4").exists()


def test_an_error_of_the_writer_ends_all(long_clip: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(WriteError, match=r"out\.mp4"):
            restore_video(long_clip, tmp_path / "out.mp4", restorer=StandIn())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out.mp4").exists()


def test_the_first_of_two_errors_is_told(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer breaks; what the others meet when they are ended is not told."""

    def fail(self: Any, item: Any) -> None:
        raise WriteError("the writer broke first")

    class Sensitive(StandIn):
        def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
            try:
                yield from super().pairs(items, **how)
            finally:
                raise ValueError("ended too early")

    monkeypatch.setattr(mhnet_video.media.writing.writer.VideoWriter, "write", fail)
    with pytest.raises(WriteError, match="the writer broke first"):
        restore_video(long_clip, tmp_path / "out.mp4", restorer=Sensitive())


@pytest.mark.usefixtures("every_frame_is_told")
def test_an_error_says_where_is_what_was_done(long_clip: Path, tmp_path: Path) -> None:
    has_written = threading.Event()

    class Failing(StandIn):
        def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
            for item in super().pairs(items, **how):
                if self.seen > 100:
                    assert has_written.wait(SECONDS)
                    raise ReadError("the card is gone.")
                yield item

    def listen(progress: Progress) -> None:
        if progress.frames >= 30:
            has_written.set()

    with pytest.raises(ReadError, match=r"^the card is gone\. What was done until then is in "):
        restore_video(long_clip, tmp_path / "out.mp4", restorer=Failing(), on_progress=listen)
    assert len(left(tmp_path)) == 2


@pytest.mark.usefixtures("every_frame_is_told")
def test_an_error_of_the_listener_ends_all(long_clip: Path, tmp_path: Path) -> None:
    restorer = Held(100)

    def listen(progress: Progress) -> None:
        if progress.frames >= 30:
            restorer.go_on.set()
            raise LookupError("the listener broke")

    with pytest.raises(LookupError, match="the listener broke"):
        restore_video(long_clip, tmp_path / "out.mp4", restorer=restorer, on_progress=listen)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.usefixtures("every_frame_is_told")
def test_a_keyboard_interrupt_in_the_caller_finishes_the_file(
    long_clip: Path, tmp_path: Path
) -> None:
    """Ctrl-C in a program that catches no signals."""
    pressed: list[int] = []
    stop = threading.Event()

    def listen(progress: Progress) -> None:
        if progress.frames >= 30 and not pressed:
            pressed.append(progress.frames)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(
            long_clip,
            tmp_path / "out.mp4",
            restorer=Held(100, stop),
            on_progress=listen,
            stop=stop,
        )
    assert left(tmp_path) == ["clip.mp4", "out.mp4"]
    assert pressed[0] <= len(probe.probe(tmp_path / "out.mp4").video.times) <= 101


@pytest.mark.usefixtures("every_frame_is_told")
def test_a_second_keyboard_interrupt_aborts(long_clip: Path, tmp_path: Path) -> None:
    """The restorer is in the middle of a frame, which is not waited for."""
    stop, restorer = threading.Event(), Held(100)

    def listen(progress: Progress) -> None:
        if progress.frames >= 30:
            stop.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(
            long_clip,
            tmp_path / "out.mp4",
            restorer=restorer,
            on_progress=listen,
            stop=stop,
        )
    restorer.go_on.set()
    assert not (tmp_path / "out.mp4").exists()
    for name in left(tmp_path):
        assert len(probe.probe(tmp_path / name).video.times) >= 10


def test_a_restorer_that_ends_early_does_not_hang(long_clip: Path, tmp_path: Path) -> None:
    class Lazy(StandIn):
        def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
            for item in items:
                yield Pair(item, item) if isinstance(item, Frame) else item
                if isinstance(item, Frame):
                    self.seen += 1
                    if self.seen == 50:
                        return

    report = restore_video(long_clip, tmp_path / "out.mp4", restorer=Lazy())
    assert report.frames == 50
    assert len(probe.probe(tmp_path / "out.mp4").video.times) == 50


def test_an_iterator_left_early_frees_the_file(long_clip: Path) -> None:
    with VideoReader(long_clip) as reader:
        for item in reader:
            if isinstance(item, Frame):
                break


@pytest.mark.usefixtures("every_frame_is_told")
def test_stop_finishes_the_file(long_clip: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def listen(progress: Progress) -> None:
        if progress.frames >= 50:
            stop.set()

    report = restore_video(
        long_clip,
        tmp_path / "out.mp4",
        restorer=Held(100, stop),
        on_progress=listen,
        stop=stop,
    )
    assert report.interrupted
    assert 50 <= report.frames <= 101
    output = probe.probe(tmp_path / "out.mp4")
    assert len(output.video.times) == report.frames
    assert left(tmp_path) == ["clip.mp4", "out.mp4"]
    # the sound ends with the picture, give or take what is interleaved
    sound = output.of("audio")[0].packets[-1].pts
    assert abs(sound - output.video.times[-1]) < 1


def test_stop_before_the_first_frame(long_clip: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    try:
        report = restore_video(long_clip, tmp_path / "out.mp4", restorer=StandIn(), stop=stop)
    except MHNetVideoError:
        assert left(tmp_path) == ["clip.mp4"]
        return
    assert report.interrupted
    if (tmp_path / "out.mp4").exists():
        assert len(probe.probe(tmp_path / "out.mp4").video.times) == report.frames > 0
    else:
        assert left(tmp_path) == ["clip.mp4"]


def test_stop_after_the_last_frame_is_no_interrupt(long_clip: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def listen(progress: Progress) -> None:
        if progress.frames == 200:
            stop.set()

    report = restore_video(
        long_clip, tmp_path / "out.mp4", restorer=StandIn(), on_progress=listen, stop=stop
    )
    assert report.frames == 200
    assert not report.interrupted


HELD_RUN = """
import sys
sys.path.insert(0, sys.argv[3])
import mhnet_video.pipelines.restore as pipeline
from standin import Held
from waiting import Ticks
pipeline.time = Ticks()
pipeline.restore_video(
    sys.argv[1],
    sys.argv[2],
    restorer=Held(int(sys.argv[4])),
    on_progress=lambda progress: print(progress.frames, flush=True),
)
"""

# goes on with the held frame when it is given something to read
HELD_PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[3])
import mhnet_video.pipelines.restore
from standin import StandIn
from mhnet_video.cli import terminal
from mhnet_video.cli.main import main
from mhnet_video.frame import Frame

class Telling(StandIn):
    def pairs(self, items, **how):
        return super().pairs(map(self.tell, items), **how)

    def tell(self, item):
        if isinstance(item, Frame):
            print(self.seen, flush=True)
            if self.seen == int(sys.argv[4]):
                os.read(0, 1)
        return item

terminal._SAME_PRESS_SECONDS = 0.0
restorer = Telling()
mhnet_video.pipelines.restore.restorer_of = lambda config: restorer
sys.exit(main(["--json", sys.argv[1], sys.argv[2]]))
"""


Start = Callable[[str, Path, Path, int], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Start:
    """Run code in a process of its own, which does not outlive the test; a number is for it."""

    def run(code: str, source: Path, output: Path, number: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-W", "error", "-c", code]
        return processes.start(
            [*command, str(source), str(output), str(HERE), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        )

    return run


def wait_for_frames(process: subprocess.Popen[str], count: int) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= count:
            return int(line)
    raise AssertionError(process.stderr.read() if process.stderr else "")


def wait_for_the_answer(process: subprocess.Popen[str]) -> None:
    """Wait until a process has taken a signal."""
    assert process.stderr is not None
    assert any("finishing the file" in line for line in process.stderr)


def finish(process: subprocess.Popen[str], given: str = "") -> tuple[str, str]:
    return process.communicate(given, timeout=SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.ts", "out.webm"])
def test_kill_leaves_a_partial_file_that_plays(
    name: str, long_clip: Path, tmp_path: Path, start: Start
) -> None:
    """The clip has 25 frames a second; all but about the last second must be there."""
    process = start(HELD_RUN, long_clip, tmp_path / name, 150)
    written = wait_for_frames(process, 130)
    process.kill()
    out, _ = finish(process)
    written = max([written, *map(int, out.split())])
    assert not (tmp_path / name).exists()
    others = [item for item in left(tmp_path) if item != "clip.mp4"]
    assert len(others) == 1
    assert others[0].endswith(Path(name).suffix)
    shown = probe.probe(tmp_path / others[0]).video.times
    assert len(shown) >= written - 30
    # and it is no wreck: what is there is the beginning of the clip, in order
    before = probe.pictures(long_clip, "gray")[: len(shown)]
    after = probe.pictures(tmp_path / others[0], "gray")
    assert min(probe.psnr(*pair) for pair in zip(before[:-2], after[:-2], strict=True)) > 28


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_file(
    number: int, long_clip: Path, tmp_path: Path, start: Start
) -> None:
    output = tmp_path / "out.mp4"
    process = start(HELD_PROGRAM, long_clip, output, 30)
    wait_for_frames(process, 30)
    process.send_signal(number)
    wait_for_the_answer(process)
    out, err = finish(process, "\n")
    assert process.returncode == 130
    report = json.loads(out[out.index("{") :])
    assert report["interrupted"]
    assert report["frames"] == 31
    assert len(probe.probe(output).video.times) == report["frames"]
    assert "Traceback" not in err
    assert left(tmp_path) == ["clip.mp4", "out.mp4"]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(long_clip: Path, tmp_path: Path, start: Start) -> None:
    """A restorer that never ends with a frame must not be waited for."""
    output = tmp_path / "out.mp4"
    process = start(HELD_PROGRAM, long_clip, output, 0)
    wait_for_frames(process, 0)
    process.send_signal(signal.SIGINT)
    wait_for_the_answer(process)
    process.send_signal(signal.SIGINT)
    _, err = process.stdout.read(), process.stderr.read()
    process.wait(SECONDS)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err
    assert not output.exists()


@pytest.mark.slow
def test_two_runs_to_one_output(long_clip: Path, tmp_path: Path, start: Start) -> None:
    """What stands there is whole, and so is the work of the one that came second."""
    output = tmp_path / "out.mp4"
    runs = [start(HELD_PROGRAM, long_clip, output, 100) for _ in range(2)]
    for process in runs:
        wait_for_frames(process, 100)
    ends = [finish(process, "\n") for process in runs]
    others = [name for name in left(tmp_path) if name not in ("clip.mp4", "out.mp4")]
    for process, (_, err) in zip(runs, ends, strict=True):
        assert process.returncode in (0, 1)
        assert "Traceback" not in err
        assert all(name in err for name in others) or process.returncode == 0
    assert 0 in [process.returncode for process in runs]
    for name in others:
        assert len(probe.probe(tmp_path / name).video.times) == 200
    assert len(probe.probe(output).video.times) == 200
    pictures = probe.pictures(long_clip, "gray"), probe.pictures(output, "gray")
    assert min(probe.psnr(*pair) for pair in zip(*pictures, strict=True)) > 30


MEMORY_RUN = """
import sys
sys.path.insert(0, sys.argv[3])
from measure_pipeline import measure_memory
from standin import StandIn
print(*measure_memory(sys.argv[1], sys.argv[2], StandIn(), int(sys.argv[4])))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path: Path, start: Start) -> None:
    """A small version of `measure_pipeline.py`: 1,000 frames would be 115 MB if they were kept."""
    count = 1000
    clip = Clip(
        video=(Video(times=every(40, count), width=320, height=240, gop=50, period=25),),
        audio=(Audio(codec="ac3", seconds=count / 25),),
    )
    process = start(MEMORY_RUN, clip.make(tmp_path), tmp_path / "out.mp4", count)
    out, err = finish(process)
    assert process.returncode == 0, err
    early, late = (float(number) for number in out.split())
    assert late - early < 30


def test_runs_one_after_another_do_not_pile_up(tmp_path: Path) -> None:
    source = Clip().make(tmp_path)
    others = frames_in_memory()
    descriptors = []
    for index in range(6):
        restore_video(source, tmp_path / f"{index}.mp4", restorer=StandIn())
        descriptors.append(len(os.listdir("/proc/self/fd")))
    assert descriptors[-1] == descriptors[1]
    assert frames_in_memory() <= others


def test_failed_runs_do_not_pile_up(tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(np.random.default_rng(0).bytes(10_000))
    descriptors = []
    for _ in range(6):
        with pytest.raises(ReadError):
            restore_video(source, tmp_path / "out.mp4", restorer=StandIn())
        descriptors.append(len(os.listdir("/proc/self/fd")))
    assert descriptors[-1] == descriptors[1]


def test_a_run_in_another_thread(long_clip: Path, tmp_path: Path) -> None:
    """Programs call it so; signals are the main thread's alone."""
    found: list[Any] = []
    run = threading.Thread(
        target=lambda: found.append(
            restore_video(long_clip, tmp_path / "out.mp4", RestoreConfig(), restorer=StandIn())
        ),
        daemon=True,
    )
    run.start()
    run.join(SECONDS)
    assert found[0].frames == 200


def test_a_box_that_begins_where_the_picture_ends_is_told() -> None:
    boxes = (Box(63, 47, 1, 1), Box(64, 0, 2, 2), Box(0, 48, 2, 2))
    found = losses_of_network(0, RestoreConfig(keep=boxes), (64, 48))
    assert [loss.what for loss in found] == ["the box 64,0,2,2", "the box 0,48,2,2"]
