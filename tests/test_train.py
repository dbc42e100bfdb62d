"""Training pairs and the training loop, on footage made here."""

import csv

import cv2
import numpy as np
import pytest
import torch

from mhnet_video.config import TrainConfig
from mhnet_video.dataset import RainyWindows, load_footage
from mhnet_video.errors import ConfigError, ReadError
from mhnet_video.pipelines.train import psnr_loss, train
from mhnet_video.weights import load_model


@pytest.fixture
def footage_dir(tmp_path):
    """Three textured photographs, and a clip of a moving texture."""
    import av

    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.integers(0, 256, (260, 300, 3)).astype(np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "data" / "clips").mkdir()
    for index in range(3):
        cv2.imwrite(
            str(tmp_path / "data" / "photos" / f"{index}.png"), np.roll(texture, 50 * index, 1)
        )
    with av.open(str(tmp_path / "data" / "clips" / "pan.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 200, 160, "yuv420p"
        for index in range(20):
            picture = np.ascontiguousarray(texture[:160, 2 * index : 2 * index + 200])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return tmp_path / "data"


def test_pairs(footage_dir):
    windows = RainyWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    dry, rainy_count, still = 0, 0, 0
    for index in range(60):
        rainy, clean = windows[index]
        assert rainy.shape == (9, 64, 64) and clean.shape == (3, 64, 64)
        assert float(rainy.min()) >= 0 and float(rainy.max()) <= 1
        again = windows[index]
        assert torch.equal(again[0], rainy) and torch.equal(again[1], clean)
        error = (rainy[3:6] - clean).square().mean()
        dry += bool(error == 0)
        rainy_count += bool(10**-4.2 < error < 10**-1.2)
        still += torch.equal(rainy[:3], rainy[3:6]) and torch.equal(rainy[3:6], rainy[6:])
    assert 1 <= dry <= 20 and rainy_count >= 25 and 18 <= still <= 45
    other = RainyWindows(load_footage(footage_dir), frames=3, crop=64, seed=2)
    assert not torch.equal(other[0][0], windows[0][0])


def test_neighbours_show_what_is_behind(footage_dir):
    """In a dry window of a clip the middle frame is the target, and neighbours are near it."""
    windows = RainyWindows(load_footage(footage_dir), frames=3, crop=64, seed=3)
    for index in range(200):
        rainy, clean = windows[index]
        if torch.equal(rainy[3:6], clean) and not torch.equal(rainy[:3], clean):
            assert (rainy[:3] - clean).abs().mean() < 0.2
            return
    pytest.fail("no dry moving window among 200")


def test_loss_is_the_error_in_decibels():
    clean = torch.rand(2, 3, 8, 8)
    noisy = clean + 0.1
    assert float(psnr_loss(noisy, clean)) == pytest.approx(-19.93, abs=0.02)
    assert float(psnr_loss(clean, clean)) == pytest.approx(-38.2, abs=0.1)


def settings(footage_dir, output, **changes):
    values = {
        "minutes": 0.12,
        "width": 8,
        "encoder_blocks": (1, 0, 0, 0),
        "crop": 64,
        "final_crop": 64,
    }
    values.update(decoder_blocks=(0,) * 4, batch=2, learning_rate=3e-3)
    return TrainConfig(
        data=str(footage_dir), output=str(output), device="cpu", **{**values, **changes}
    )


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_training_learns_and_resumes(footage_dir, tmp_path):
    output = tmp_path / "run"
    path = train(settings(footage_dir, output))
    first = torch.load(output / "checkpoint.pt", weights_only=True)
    assert first["step"] > 5 and first["seen"] == 2 * first["step"]
    assert first["spent"] >= 0.12 * 60
    network = load_model(path)
    assert network.config.width == 8 and float(network.ending.weight.abs().max()) > 0

    train(settings(footage_dir, output, minutes=0.2))
    second = torch.load(output / "checkpoint.pt", weights_only=True)
    assert second["step"] > first["step"] and second["spent"] >= 0.2 * 60
    with (output / "log.csv").open(newline="") as log:
        assert csv.DictReader(log).fieldnames == ["step", "minutes", "rate", "loss_db", "input_db"]

    # weights to begin with are trained further, in a run of its own
    third = train(settings(footage_dir, tmp_path / "more", init=str(path)))
    assert not torch.equal(load_model(third).ending.weight, network.ending.weight)

    with pytest.raises(ConfigError, match="other settings"):
        train(settings(footage_dir, output, width=16))


def test_wrong_settings(footage_dir, tmp_path):
    with pytest.raises(ReadError, match="no photos/ or clips/"):
        train(settings(tmp_path / "nothing", tmp_path / "run"))
    with pytest.raises(ConfigError, match="minutes"):
        settings(footage_dir, tmp_path, minutes=0)
    with pytest.raises(ConfigError, match="multiples of 32"):
        settings(footage_dir, tmp_path, crop=100)
