"""Files that appear are taken when they have stopped growing."""

import shutil
from pathlib import PurePosixPath

import pytest
from clips import Clip, Video, every

import mhnet_video.batch.planning as planning
import mhnet_video.batch.watching as watching
from mhnet_video.batch.discovery import OWN_FOLDER, FoundFile
from mhnet_video.batch.planning import FootageCache, make_plan
from mhnet_video.errors import ConfigError


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(planning, "time", clock)
    monkeypatch.setattr(watching, "time", clock)
    return clock


@pytest.fixture
def card(tmp_path):
    (tmp_path / "card").mkdir()
    return tmp_path / "card"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out" / OWN_FOLDER).mkdir(parents=True)
    return tmp_path / "out"


def test_a_file_is_taken_when_it_has_stayed_as_it_is(card, out, clock, tmp_path):
    clip = Clip(video=(Video(times=every(40, 5)),)).make(tmp_path)
    footage_cache = FootageCache(10)

    def keys():
        footage_cache.is_waiting = False
        return [work.key for work in make_plan([str(card)], out, footage_cache=footage_cache).works]

    content = clip.read_bytes()
    (card / "a.mp4").write_bytes(content[:1000])
    assert keys() == [] and footage_cache.is_waiting
    clock.now += 9
    with open(card / "a.mp4", "ab") as file:
        file.write(content[1000:])
    assert keys() == [] and footage_cache.is_waiting
    clock.now += 9
    assert keys() == [] and footage_cache.is_waiting
    clock.now += 1
    assert keys() == ["a.mp4"] and not footage_cache.is_waiting
    shutil.copyfile(clip, card / "b.mp4")
    assert keys() == ["a.mp4"] and footage_cache.is_waiting


def test_a_file_that_grows_for_days_takes_no_more_memory(card, clock):
    footage_cache = FootageCache(10)
    path = card / "a.mp4"
    found = FoundFile(path=path, relative=PurePosixPath("a.mp4"), root=card, is_named=False)
    for size in range(1, 50):
        path.write_bytes(bytes(size))
        assert footage_cache.of(found) is None
        clock.now += 9
    assert [len(kept) for kept in vars(footage_cache).values() if isinstance(kept, dict)] == [1]


@pytest.fixture
def watch(monkeypatch, card, clock):
    """One without its thread: a test says what the system would tell."""
    monkeypatch.setattr(watching.threading.Thread, "start", lambda self: None)
    monkeypatch.setattr(watching.threading.Thread, "join", lambda self, seconds: None)
    with watching.FolderWatch([str(card)]) as watch:
        yield watch


def test_folders_are_listed_at_once_and_then_every_minute(watch, clock):
    assert watch.is_due()
    for _ in range(59):
        assert not watch.is_due()
        clock.now += 1
    clock.now += 1
    assert watch.is_due()
    assert not watch.is_due()


def test_news_are_looked_at_when_they_may_be_complete_however_many_come(watch, clock):
    assert watch.is_due()
    due = []
    for second in range(30):
        watch._has_news.set()
        due += [second] if watch.is_due() else []
        clock.now += 1
    assert due == [10, 21]


def test_what_grows_is_looked_at_again(watch, clock):
    assert watch.is_due()
    watch.look_again()
    clock.now += watching.SETTLED_SECONDS
    assert watch.is_due()


@pytest.mark.parametrize(
    "error", [OSError("OS file watch limit reached."), RuntimeError("Too many open files")]
)
def test_folders_that_the_system_does_not_watch_are_listed_all_the_same(
    card, monkeypatch, caplog, error
):
    def refuse(*folders, **how):
        raise error

    monkeypatch.setattr("watchfiles.watch", refuse)
    with watching.FolderWatch([str(card)]) as watch:
        watch._thread.join()
        assert watch.is_due()
    assert caplog.messages == [f"new files are looked for once a minute only ({error})"]


def test_only_folders_are_watched(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ConfigError, match="takes folders only"):
        watching.FolderWatch([str(tmp_path / "a.mp4")])
