"""What several tests of pipelines begin with."""

import threading

import probe
import pytest
import rainy_road
import torch

import mhnet_video.pipelines.batch
from mhnet_video.pipelines.restore import restore_video


@pytest.fixture(scope="session")
def road(tmp_path_factory):
    """A film, and the pictures that one run makes of it."""
    folder = tmp_path_factory.mktemp("road")
    film = rainy_road.film(folder / "road.mp4")
    restore_video(film, folder / "one.mkv", rainy_road.EXACT, restorer=rainy_road.restorer())
    return film, probe.pictures(folder / "one.mkv").astype(int)


@pytest.fixture(scope="session")
def pane_road(tmp_path_factory):
    """Likewise, of a camera that moves and a network that sees the glass before it."""
    folder = tmp_path_factory.mktemp("pane_road")
    film = rainy_road.film(folder / "road.mp4", 460, moves=True)
    restorer = rainy_road.restorer(sees_glass=True)
    restore_video(film, folder / "one.mkv", rainy_road.EXACT, restorer=restorer)
    return film, probe.pictures(folder / "one.mkv").astype(int)


class OwnProcess:
    """Does works in this process, as workers do: a second for each start is much in a test."""

    works = ()

    def __init__(self, load, environments):
        self._load, self._job, self._rows = load, None, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def give(self, work):
        if self._rows:
            return False
        self._job = self._job or self._load()
        row = self._job(work, lambda seconds: None, threading.Event())
        self._rows.append(row)
        self.works = [work]
        return True

    def poll(self, seconds):
        self.works, rows, self._rows = [], self._rows, []
        return rows

    def stop(self):
        pass


@pytest.fixture
def own_process(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(mhnet_video.pipelines.batch, "WorkerPool", OwnProcess)
    yield
    torch.set_num_threads(threads)
