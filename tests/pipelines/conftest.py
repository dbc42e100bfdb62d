"""What several tests of pipelines begin with."""

import probe
import pytest
import rainy_road

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
