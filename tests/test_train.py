"""Training pairs and the training loop, on footage made here."""

import csv
import itertools
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mhnet_video.config import TrainConfig
from mhnet_video.dataset import CleanWindows, load_footage, rainy_batch, rainy_pair
from mhnet_video.errors import ConfigError, ReadError
from mhnet_video.pipelines.train import (
    _Batches,
    _Team,
    edge_loss,
    psnr_loss,
    save_curve,
    train,
)
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


def pair(windows, index):
    return rainy_pair(windows[index], frames=3, device="cpu")


def test_pairs(footage_dir):
    windows = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    dry, rainy_count, still = 0, 0, 0
    for index in range(60):
        rainy, clean = pair(windows, index)
        assert rainy.shape == (9, 64, 64) and clean.shape == (3, 64, 64)
        assert float(rainy.min()) >= 0 and float(rainy.max()) <= 1
        again = pair(windows, index)
        assert torch.equal(again[0], rainy) and torch.equal(again[1], clean)
        error = (rainy[3:6] - clean).square().mean()
        dry += bool(error == 0)
        rainy_count += bool(10**-4.2 < error < 10**-1.2)
        still += torch.equal(rainy[:3], rainy[3:6]) and torch.equal(rainy[3:6], rainy[6:])
    assert 1 <= dry <= 20 and rainy_count >= 30 and 18 <= still <= 45
    other = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=2)
    assert not torch.equal(pair(other, 0)[0], rainy_pair(windows[0], frames=3, device="cpu")[0])
    rainy, clean = rainy_batch([windows[0], windows[1]], frames=3, device="cpu")
    assert torch.equal(rainy[1], pair(windows, 1)[0]) and torch.equal(clean[1], pair(windows, 1)[1])


def test_neighbours_show_what_is_behind_or_nothing_of_it(footage_dir):
    """Mostly the frames of a window are near one another; at times they are strangers."""
    windows = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=3)
    cleans = [window.clean for window in (windows[i] for i in range(150))]
    moving = [clean for clean in cleans if len(clean) == 3]
    jumps = torch.tensor([float((c[0] - c[1]).abs().mean()) for c in moving])
    assert 55 <= len(moving) <= 110
    assert (jumps < 0.05).float().mean() > 0.3 and (jumps > 0.15).any()


def test_a_copied_frame_has_the_middle_ones_rain(footage_dir):
    windows = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=4)
    copies = {0: 0, 2: 0}
    for index in range(100):
        if (copied := windows[index].copied) is not None:
            rainy = pair(windows, index)[0].unflatten(0, (3, 3))
            assert torch.equal(rainy[copied], rainy[1])
            copies[copied] += not torch.equal(rainy[2 - copied], rainy[1])
    assert min(copies.values()) >= 1 and 4 <= sum(copies.values()) <= 25


def test_loss_is_the_error_in_decibels():
    clean = torch.rand(2, 3, 8, 8)
    noisy = clean + 0.1
    assert float(psnr_loss(noisy, clean)) == pytest.approx(-19.79, abs=0.02)
    assert float(psnr_loss(clean, clean)) == pytest.approx(-33.0, abs=0.1)


def test_edges_are_what_differs_from_pixel_to_pixel():
    clean = torch.rand(2, 3, 8, 8)
    assert float(edge_loss(clean + 0.1, clean)) == pytest.approx(0, abs=1e-6)
    line = clean.clone()
    line[:, :, :, 3] += 0.1  # two sides of 8 of the 56 differences in a row
    assert float(edge_loss(line, clean)) == pytest.approx(0.1 * 2 / 7, rel=1e-3)


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
    assert second["seen"] == 2 * second["step"]
    with (output / "log.csv").open(newline="") as log:
        assert csv.DictReader(log).fieldnames == ["step", "minutes", "rate", "loss_db", "input_db"]

    # weights to begin with are trained further, in a run of its own
    third = train(settings(footage_dir, tmp_path / "more", init=str(path)))
    assert not torch.equal(load_model(third).ending.weight, network.ending.weight)

    with pytest.raises(ConfigError, match="other settings"):
        train(settings(footage_dir, output, width=16))


def test_processes_train_as_one(footage_dir, tmp_path):
    """Two processes, of other windows each, take the steps of one with all of these windows."""
    script = tmp_path / "run.py"
    script.write_text(
        "import os, sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_train import settings\n"
        "from mhnet_video.pipelines import train as module\n"
        "torch.set_num_threads(1)\n"
        "rank = os.environ['RANK']\n"
        "networks, real = [], module.MHNet\n"
        "module.MHNet = lambda sizes: networks.append(real(sizes)) or networks[-1]\n"
        "module.train(settings(sys.argv[1], sys.argv[2], minutes=0.05))\n"
        "torch.save(networks[0].state_dict(), f'{sys.argv[2]}/rank{rank}.pt')\n"
    )
    output = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [*command, str(script), str(footage_dir), str(output)], check=True, env=environment
    )
    first, second = (torch.load(output / f"rank{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    assert saved["seen"] == 2 * 2 * saved["step"] and saved["step"] >= 2
    assert all(torch.equal(first[name], saved["network"][name]) for name in first)
    assert float(first["ending.weight"].abs().max()) > 0


def test_processes_have_windows_of_their_own():
    teams = [_Team("cpu"), _Team("cpu")]
    for rank, team in enumerate(teams):
        team.rank, team.size = rank, 2
    first, second = (list(itertools.islice(_Batches(10, 3, team), 2)) for team in teams)
    assert first == [[10, 11, 12], [16, 17, 18]]
    assert second == [[13, 14, 15], [19, 20, 21]]


def test_the_curve_shows_both_lines(tmp_path):
    log, path = tmp_path / "log.csv", tmp_path / "curve.png"
    lines = [f"{50 * i},{i},1e-3,{-30 - i / 30},-25" for i in range(90)]
    log.write_text("\n".join(["step,minutes,rate,loss_db,input_db", *lines]) + "\n")
    save_curve(log, path)
    picture = cv2.imread(str(path)).astype(int)
    blue = (
        picture[..., 0] - picture[..., 2] > 100
    ).nonzero()  # the results rise, the inputs do not
    left, right = (blue[0][blue[1] == x].mean() for x in (100, 650))
    assert left - right > 50
    grey = (np.abs(picture - 120).max(axis=2) < 10)[30:].nonzero()
    ends = [grey[0][grey[1] == x].mean() for x in (100, 650)]
    assert abs(ends[0] - ends[1]) < 3 and ends[0] > left - 30


def test_wrong_settings(footage_dir, tmp_path):
    with pytest.raises(ReadError, match="no photos/ or clips/"):
        train(settings(tmp_path / "nothing", tmp_path / "run"))
    with pytest.raises(ConfigError, match="minutes"):
        settings(footage_dir, tmp_path, minutes=0)
    with pytest.raises(ConfigError, match="multiples of 32"):
        settings(footage_dir, tmp_path, crop=100)
