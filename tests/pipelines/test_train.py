"""Training pairs and the training loop, on footage made here."""

import copy
import csv
import errno
import itertools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import processes
import pytest
import torch
from waiting import SECONDS, Ticks, wait_until

import mhnet_video.training.dataset
from mhnet_video.cli.arguments import train_parser
from mhnet_video.config import TrainConfig
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError, WriteError
from mhnet_video.model.align import align
from mhnet_video.model.network import MHNet, NAFBlock, NetworkConfig
from mhnet_video.model.weights import load_model, save_weights
from mhnet_video.model.window import window_indices
from mhnet_video.pipelines.train import (
    BorrowedMeans,
    Optimizer,
    _Batches,
    _cut_log,
    _Team,
    edge_loss,
    psnr_loss,
    save_curve,
    train,
)
from mhnet_video.training.dataset import (
    CleanWindows,
    rain_likeness,
    rainy_batch,
    rainy_pair,
)
from mhnet_video.training.footage import load_footage


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


def pair(samples, index):
    return rainy_pair(samples[index], frames=3, device="cpu")


def windows_of(samples, count):
    """The windows of the first samples, alone or in mosaics."""
    return [window for index in range(count) for window in samples[index]]


def test_pairs(footage_dir):
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    for index in range(8):
        rainy, clean = pair(samples, index)
        assert rainy.shape == (9, 64, 64) and clean.shape == (3, 64, 64)
        assert float(rainy.min()) >= 0 and float(rainy.max()) <= 1
        again = pair(samples, index)
        assert torch.equal(again[0], rainy) and torch.equal(again[1], clean)
    other = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=2)
    assert not torch.equal(pair(other, 0)[0], pair(samples, 0)[0])
    rainy, clean = rainy_batch([samples[0], samples[1]], frames=3, device="cpu")
    assert torch.equal(rainy[1], pair(samples, 1)[0]) and torch.equal(clean[1], pair(samples, 1)[1])


def test_most_windows_are_rainy_some_dry_and_many_alone(footage_dir):
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    dry, rainy_count, alone = 0, 0, 0
    windows = windows_of(samples, 50)[:120]
    for window in windows:
        rainy, clean = rainy_pair((window,), frames=3, device="cpu")
        error = (rainy[3:6] - clean).square().mean()
        dry += bool(error == 0)
        rainy_count += bool(10**-4.2 < error < 10**-1.2)
        alone += not rainy[:3].any() and not rainy[6:].any()
    assert len(windows) == 120
    assert 24 <= dry <= 60 and rainy_count >= 50 and 36 <= alone <= 70


def test_the_end_of_a_run_sees_more_dry_pictures(footage_dir):
    footage, shares = load_footage(footage_dir), []
    for is_late in (False, True):
        samples = CleanWindows(footage, frames=3, crop=64, seed=1, is_late=is_late)
        windows = windows_of(samples, 150)[:400]
        alone = [window.is_dry for window in windows if len(window.clean) == 1]
        others = [window.is_dry for window in windows if len(window.clean) > 1]
        shares.append((len(alone) / 400, np.mean(alone), np.mean(others)))
    assert shares[0] == pytest.approx((0.43, 0.24, 0.2), abs=0.06)
    assert shares[1] == pytest.approx((0.5, 0.37, 0.28), abs=0.06)


def test_what_is_bright_upright_and_narrow_is_like_rain():
    def likeness(rows, columns, level):
        picture = torch.full((1, 3, 64, 64), 0.4)
        picture[..., rows, columns] = level
        return rain_likeness(picture)

    post = likeness(slice(10, 50), slice(30, 33), 0.9)
    assert post == pytest.approx(0.5 * 255 * 40 * 3 / 64**2, rel=0.02)
    assert likeness(slice(10, 50), slice(30, 33), 0.6) < post / 2
    assert likeness(slice(10, 50), slice(30, 33), 0.1) == 0  # dark
    assert likeness(slice(10, 50), slice(30, 45), 0.9) == 0  # wide
    assert likeness(slice(30, 33), slice(10, 50), 0.9) == 0  # it lies


def test_dry_pictures_are_the_most_rain_like(footage_dir):
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    alone = [window for window in windows_of(samples, 300) if len(window.clean) == 1]
    dry, rainy = (
        np.mean([rain_likeness(window.clean) for window in alone if window.is_dry is is_dry])
        for is_dry in (True, False)
    )
    assert dry > 1.15 * rainy > 0


def test_mosaics_are_sewn_of_windows_with_rain_of_their_own(footage_dir):
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    sizes = [len(samples[index]) for index in range(60)]
    assert set(sizes) == {1, 4} and 0.55 < sizes.count(4) / 60 < 0.95
    mosaic = samples[sizes.index(4)]
    assert all(window.clean.shape[2:] == (32, 32) for window in mosaic)
    rainy, clean = rainy_pair(mosaic, frames=3, device="cpu")
    for place, window in enumerate(mosaic):
        y, x = 32 * (place // 2), 32 * (place % 2)
        alone = rainy_pair((window,), frames=3, device="cpu")
        assert torch.equal(rainy[:, y : y + 32, x : x + 32], alone[0])
        assert torch.equal(clean[:, y : y + 32, x : x + 32], alone[1])
    assert len({window.seed for window in mosaic}) == 4


def test_some_windows_are_of_large_pictures(footage_dir, monkeypatch):
    """Either with larger streaks before what is sharp, or enlarged with their rain."""
    monkeypatch.setattr(mhnet_video.training.dataset, "NIGHT_SHARE", 0)
    monkeypatch.setattr(mhnet_video.training.dataset, "camera", lambda clips, _: clips)
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=5)
    windows = windows_of(samples, 150)[:400]
    large = [window for window in windows if window.scale > 1]
    assert 0.2 < len(large) / 400 < 0.4 and 2.5 < max(window.scale for window in large) <= 3
    assert 0.4 < np.mean([window.is_soft for window in large]) < 0.8
    steps, wet = [], 0
    soft = [w for w in large if w.is_soft and not w.is_dry and w.text is None]
    for window in soft:
        plain, enlarged = (
            rainy_pair((w,), frames=3, device="cpu") for w in (window._replace(scale=1.0), window)
        )
        for before, after in zip(plain, enlarged, strict=True):
            assert after.shape == before.shape
            change = [float(x.diff(dim=-1).abs().mean()) for x in (before, after)]
            steps.append(window.scale * change[1] / change[0])
        wet += not torch.equal(enlarged[0][3:6], enlarged[1])
    assert wet >= 0.6 * len(soft)  # a part of the picture may be where it does not rain
    # what is enlarged changes less from pixel to pixel
    assert np.median(steps) == pytest.approx(1, abs=0.3)
    seen = []
    monkeypatch.setattr(
        mhnet_video.training.dataset,
        "rain_on",
        lambda clean, _, *, scale: seen.append(scale) or clean,
    )
    for window in large:
        rainy_pair((window,), frames=3, device="cpu")
    wanted = [1 if w.is_soft else w.scale for w in large if not w.is_dry]
    assert seen == wanted and max(seen) > 2


def test_a_clip_smaller_than_the_crop_is_mirrored(footage_dir):
    footage = load_footage(footage_dir)
    footage.photos.clear()
    samples = CleanWindows(footage, frames=3, crop=224, seed=1)  # the clip is 200x160
    whole = next(samples[index][0] for index in range(60) if len(samples[index]) == 1)
    assert whole.clean.shape[2:] == (224, 224)


def test_neighbours_show_what_is_behind_or_nothing_of_it(footage_dir):
    """Mostly the frames of a window are near one another; at times they are strangers."""
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=3)
    cleans = [window.clean for window in windows_of(samples, 60)[:150]]
    moving = [clean for clean in cleans if len(clean) == 3]
    jumps = torch.tensor([float((c[0] - c[1]).abs().mean()) for c in moving])
    assert 55 <= len(moving) <= 110
    assert (jumps < 0.05).float().mean() > 0.2 and (jumps > 0.15).any()


@pytest.mark.parametrize("frames", [3, 5])
def test_copied_frames_have_the_middle_ones_rain(frames, footage_dir, monkeypatch):
    samples = CleanWindows(load_footage(footage_dir), frames=frames, crop=64, seed=4)
    found = [window for window in windows_of(samples, 200) if window.copies]
    half = frames // 2
    sides = {(half - 1,), (half + 1,)} | ({(half - 1, half + 1)} if frames > 3 else set())
    assert {window.copies for window in found} == sides
    unlike, others = 0, 0
    for window in found:
        seen, _ = rainy_pair((window,), frames=frames, device="cpu")
        rainy = seen.unflatten(0, (frames, 3))
        are_same = [torch.equal(frame, rainy[half]) for frame in rainy]
        assert window.is_recoded or all(are_same[index] for index in window.copies)
        unlike += sum(not are_same[index] for index in window.copies)
        others += sum(not same for i, same in enumerate(are_same) if i not in window.copies)
    assert unlike >= 3  # a copy that was coded anew has other noise
    assert others >= 0.9 * len(found)  # dry scenes may be at rest
    monkeypatch.setattr(mhnet_video.training.dataset, "camera", lambda clips, _: clips)
    for window in found:
        rainy = rainy_pair((window,), frames=frames, device="cpu")[0].unflatten(0, (frames, 3))
        assert all(torch.equal(rainy[index], rainy[half]) for index in window.copies)


@pytest.mark.parametrize("frames", [3, 5])
def test_at_a_clips_ends_frames_of_the_other_side_are_seen(frames, footage_dir):
    samples = CleanWindows(load_footage(footage_dir), frames=frames, crop=64, seed=2)
    half = frames // 2
    windows = [w for w in windows_of(samples, 450) if len(w.clean) > 1]
    ends = [w for w in windows if len(w.clean) < frames or w.middle != half]
    assert 12 <= len(ends) <= 90
    assert {w.middle for w in ends if len(w.clean) == frames} == {*range(frames)} - {half}
    assert {len(w.clean) for w in ends} == set(range(2, frames + 1))
    unlike = 0
    for window in ends:
        seen, clean = rainy_pair((window,), frames=frames, device="cpu")
        rainy = seen.unflatten(0, (frames, 3))
        places = window_indices(window.middle, len(window.clean), frames)
        for place, frame in zip(places, rainy, strict=True):
            assert torch.equal(frame, rainy[places.index(place)])
        unlike += len({float(frame.mean()) for frame in rainy}) == len(set(places))
        assert float((rainy[half] - clean).abs().mean()) < 0.2  # of one scene
    assert unlike >= len(ends) / 2  # frames that are there have rain of their own


def test_no_rain_falls_before_letters_that_are_burnt_in(footage_dir, monkeypatch):
    monkeypatch.setattr(mhnet_video.training.dataset, "camera", lambda clips, _: clips)
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=2)
    written = [w for w in windows_of(samples, 100)[:300] if w.text is not None]
    assert 12 <= len(written) <= 65
    written = [w for w in written if w.scale == 1 or not w.text_is_soft]
    covered = 0
    for window in written:
        letters = window.text[3] == 1
        rainy, clean = rainy_pair((window,), frames=3, device="cpu")
        seen = rainy.unflatten(0, (3, 3))[1:2] if len(window.clean) == 1 else rainy.split(3)
        for view in [*seen, clean]:
            assert torch.equal(view[:, letters], window.text[:3, letters])
        covered += int(letters.sum())
    assert covered > 500


def test_letters_of_large_pictures_are_enlarged_with_the_scene_or_not(footage_dir, monkeypatch):
    monkeypatch.setattr(mhnet_video.training.dataset, "NIGHT_SHARE", 0)
    monkeypatch.setattr(mhnet_video.training.dataset, "camera", lambda clips, _: clips)
    share = mhnet_video.training.dataset.TEXT_SHARE
    monkeypatch.setattr(mhnet_video.training.dataset, "ALONE_TEXT_SHARE", share)
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=2)
    windows = windows_of(samples, 600)
    large = [w for w in windows if w.text is not None and w.is_soft and w.scale > 2]
    assert {window.text_is_soft for window in large} == {False, True}
    for window in large:
        text = torch.zeros(4, *window.clean.shape[2:])
        text[3, :, 4:-4:8] = 1  # black lines, in the place of letters, before white
        window = window._replace(text=text, is_dry=True, clean=torch.ones_like(window.clean))
        _, clean = rainy_pair((window,), frames=3, device="cpu")
        is_dark, widths = torch.unique_consecutive(clean[0, 0] < 0.5, return_counts=True)
        # an enlarged line has two to four pixels, by its place
        expected = range(2, 5) if window.text_is_soft else [1]
        assert int(widths[is_dark].max()) in expected


def test_windows_are_aligned_as_the_network_will_see_them(footage_dir):
    samples = CleanWindows(load_footage(footage_dir), frames=3, crop=64, seed=1)
    changed = 0
    for window in windows_of(samples, 10)[:20]:
        plain = rainy_pair((window,), frames=3, device="cpu")
        aligned = rainy_pair((window,), frames=3, device="cpu", aligns=True)
        assert torch.equal(aligned[1], plain[1])
        expected = align(plain[0].unflatten(0, (1, 3, 3)))[0].flatten(0, 1)
        torch.testing.assert_close(aligned[0], expected, rtol=0, atol=1e-4)
        changed += not torch.equal(aligned[0], plain[0])
    assert 3 <= changed < 20  # moving windows, and none of those that stand still


def test_arguments_are_numbers_where_the_settings_are():
    options = vars(train_parser().parse_args(["--data", "d", "--output", "o", "--seed", "7"]))
    default = TrainConfig(data="d", output="o")
    assert options == {**asdict(default), "seed": 7}
    words = ["--data", "d", "--output", "o", "--align", "--init", "w", "--minutes", "2"]
    config = TrainConfig(**vars(train_parser().parse_args(words)))
    assert config == replace(default, align=True, init="w", minutes=2.0)


def test_borrowed_means_are_another_pictures():
    network = MHNet(NetworkConfig(width=8, encoder_blocks=(1, 0, 0, 0), group_blocks=(1, 0, 0, 0)))
    names = set(network.state_dict())
    torch.nn.init.normal_(network.ending.weight, std=0.1)
    for module in network.modules():
        if isinstance(module, NAFBlock):
            torch.nn.init.ones_(module.beta)
    pictures = torch.rand(2, 3, 32, 32) * torch.tensor([0.2, 1.0]).reshape(2, 1, 1, 1)
    before = network.residual(pictures)
    means = BorrowedMeans(network)
    assert set(network.state_dict()) == names
    assert torch.equal(network.residual(pictures), before)
    means.share = torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1)
    after = network.residual(pictures)
    assert not torch.allclose(after[0], before[0], atol=1e-3)
    assert torch.allclose(after[1], before[1], atol=1e-6)
    given = torch.tensor([2.0, 6.0]).reshape(2, 1, 1, 1)
    means.share = torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1)
    assert means(given).flatten().tolist() == [3.0, 4.0]


def test_half_of_the_pictures_borrow():
    means, picture = BorrowedMeans(MHNet(NetworkConfig(width=8))), torch.zeros(8, 3, 4, 4)
    shares = []
    for step in range(40):
        means.draw(step, picture)
        shares.append(means.share.flatten())
    drawn = torch.cat(shares)
    assert 0.4 < float((drawn > 0).float().mean()) < 0.6 and float(drawn.max()) > 0.9
    means.draw(3, picture)
    assert torch.equal(means.share.flatten(), shares[3])


@pytest.fixture
def seconds(monkeypatch):
    """Every step takes a second, however busy the machine is."""
    monkeypatch.setattr("mhnet_video.pipelines.train.time", Ticks())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_pictures_make_a_step_of_large_crops(footage_dir, tmp_path, seconds):
    """The others' means are to be had there too; and a crop may change half way."""
    output = tmp_path / "run"
    train(settings(footage_dir, output, crop=32, final_crop=96, minutes=0.1))
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 6 and saved["seen"] == 12


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


def small_network():
    torch.manual_seed(0)
    sizes = {"width": 8, "frames": 3, "patch": 2, "encoder_blocks": (1, 0, 0, 0)}
    network = MHNet(NetworkConfig(**sizes, decoder_blocks=(0,) * 4, group_blocks=(1, 0, 0, 0)))
    network = network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return network


def test_steps_of_matrices_are_as_large_in_all_directions():
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Optimizer(network).step(0.01)
    mixing = 0
    for name, parameter in network.named_parameters():
        change = before[name] - parameter.detach()
        if parameter.ndim == 4 and min(parameter.shape[:2]) > 1:
            mixing += 1
            matrix = (change - 0.01 * 1e-4 * before[name]).flatten(1)
            sizes = torch.linalg.svdvals(matrix) / (0.01 * 0.2 * max(matrix.shape) ** 0.5)
            assert float(sizes.min()) > 0.3 and float(sizes.max()) < 1.3, name
        else:  # Adam's first step is the rate, with the gradient's sign
            expected = 0.01 * parameter.grad.sign()
            torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6)
    assert mixing > 20


def test_an_optimizer_goes_on_where_another_was():
    networks = [small_network(), small_network()]
    first = Optimizer(networks[0])
    first.step(0.01)
    networks[1].load_state_dict(networks[0].state_dict())
    second = Optimizer(networks[1])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer in (first, second):
        optimizer.step(0.02)
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_training_learns_and_resumes(footage_dir, tmp_path, seconds):
    output = tmp_path / "run"
    path = train(settings(footage_dir, output))
    first = torch.load(output / "checkpoint.pt", weights_only=True)
    assert first["step"] == 8 and first["seen"] == 16 and first["spent"] == 8
    network = load_model(path)
    assert network.config.width == 8 and float(network.ending.weight.abs().max()) > 0

    train(settings(footage_dir, output, minutes=0.2))
    second = torch.load(output / "checkpoint.pt", weights_only=True)
    assert second["step"] == 12 and second["seen"] == 24 and second["spent"] == 12
    with (output / "log.csv").open(newline="") as log:
        assert csv.DictReader(log).fieldnames == ["step", "minutes", "rate", "loss_db", "input_db"]

    # weights to begin with are trained further, in a run of its own
    third = train(settings(footage_dir, tmp_path / "more", init=str(path)))
    assert not torch.equal(load_model(third).ending.weight, network.ending.weight)

    with pytest.raises(ConfigError, match=r"other settings \(width, seed\); take those"):
        train(settings(footage_dir, output, width=16, seed=5))


def has_deaf_child(process, number):
    """Whether a process has a child that ignores a signal: the one that loads."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    stati = [Path(f"/proc/{child}/status").read_text() for child in children]
    ignored = [
        int(re.search(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)[1], 16) for status in stati
    ]
    return any(mask >> (number - 1) & 1 for mask in ignored)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_run_ends_it_well(number, footage_dir, tmp_path):
    command = [sys.executable, "-m", "mhnet_video", "train", "--data", footage_dir]
    sizes = ["--width", "8", "--crop", "64", "--final-crop", "64", "--batch", "2", "--minutes", "5"]
    output = tmp_path / "run"
    with (tmp_path / "said").open("w+") as said:
        process = processes.start(
            [*command, "--device", "cpu", "--output", output, *sizes], stderr=said
        )
        wait_until(lambda: has_deaf_child(process.pid, number))
        os.killpg(process.pid, number)
        status = process.wait(SECONDS)
        said.seek(0)
        assert status == 130, said.read()
    assert (output / "weights.safetensors").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_that_is_stopped_is_saved_and_its_log_goes_on(footage_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("mhnet_video.pipelines.train.LOG_STEPS", 1)
    stop = threading.Event()

    def stop_soon(step, *_):
        if step == 3:
            stop.set()

    output = tmp_path / "run"
    train(settings(footage_dir, output, minutes=5), on_log=stop_soon, stop=stop)
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    assert 3 <= saved["step"] <= 4 and (output / "weights.safetensors").exists()
    # what a killed run has told after its last checkpoint is told anew
    with (output / "log.csv").open("a") as log:
        log.write("50,0.1,1e-3,-20,-20\n")
    stop.clear()
    train(settings(footage_dir, output, minutes=5), on_log=lambda *_: stop.set(), stop=stop)
    with (output / "log.csv").open(newline="") as log:
        steps = [int(row["step"]) for row in csv.DictReader(log)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > saved["step"]
    (output / "checkpoint.pt").write_bytes((output / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ConfigError, match="is damaged; remove it"):
        train(settings(footage_dir, output, minutes=5))
    torch.save({**saved, "optimizer": {}}, output / "checkpoint.pt")
    with pytest.raises(ConfigError, match="is of an older version; begin with its weights"):
        train(settings(footage_dir, output, minutes=5))


def test_a_folder_that_may_not_be_written_is_found_out_before_training(
    footage_dir, tmp_path, monkeypatch
):
    output = tmp_path / "run"
    output.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WriteError, match="the folder may not be written to"):
        train(settings(footage_dir, output))
    assert list(output.iterdir()) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_that_diverges_ends_and_spoils_nothing(footage_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("mhnet_video.pipelines.train.SAVE_SECONDS", 0)
    output = tmp_path / "run"
    with pytest.raises(MHNetVideoError, match=r"diverged at step \d+: .*lower --learning-rate"):
        train(settings(footage_dir, output, minutes=5, learning_rate=1e20))
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    for network in (saved["network"], saved["average"]):
        assert all(bool(value.isfinite().all()) for value in network.values())
    assert not multiprocessing.active_children()


@pytest.fixture
def limit():
    """Lets no file grow beyond a number of bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_full_disk_is_named_and_leaves_no_part_of_a_checkpoint(
    footage_dir, tmp_path, limit, seconds
):
    output = tmp_path / "run"
    limit(400_000)  # room for the memory that the loader's process shares
    with pytest.raises(WriteError, match=r"checkpoint\.pt cannot be written: the file is larger"):
        train(settings(footage_dir, output, minutes=0.02))
    assert [path.name for path in output.iterdir()] == ["log.csv"]


def test_a_full_disk_leaves_no_part_of_a_weights_file(tmp_path, limit):
    path = tmp_path / "weights.safetensors"
    limit(20_000)
    with pytest.raises(WriteError, match=r"weights\.safetensors: File too large"):
        save_weights(MHNet(NetworkConfig(width=8)), path, description="", training={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", ["150,0.", "150,0.3,1e-3,-20,-2", "100", "150,0.3\n"])
def test_lines_that_a_full_disk_has_torn_are_cut_off_a_log(torn, tmp_path):
    log, curve = tmp_path / "log.csv", tmp_path / "curve.png"
    lines = ["step,minutes,rate,loss_db,input_db\n", "50,0.1,1e-3,-20,-20\n"]
    log.write_text("".join(lines) + torn)
    assert not _cut_log(log, 200)
    assert log.read_text() == "".join(lines)
    save_curve(log, curve)
    log.write_text(lines[0][:12])
    assert _cut_log(log, 200) and log.read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "log.csv"]


def test_what_is_no_clip_is_passed_over_or_named(footage_dir, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(footage_dir, folder)
    (folder / "clips").mkdir(exist_ok=True)
    expected = len(load_footage(folder).clips)
    (folder / "clips" / ".DS_Store").write_bytes(b"x")
    (folder / "clips" / "more").mkdir()
    assert len(load_footage(folder).clips) == expected
    (folder / "clips" / "notes.txt").write_text("no video")
    with pytest.raises(ReadError, match=r"notes\.txt is no video"):
        load_footage(folder)


def test_what_is_no_photograph_is_passed_over_or_named(footage_dir, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(footage_dir, folder)
    (folder / "photos" / "._0.png").write_bytes(b"x")
    (folder / "photos" / "LICENSE.txt").write_text("CC0")
    assert len(load_footage(folder).photos) == 3
    photo = folder / "photos" / "1.png"
    photo.write_bytes(photo.read_bytes()[:20])
    with pytest.raises(ReadError, match=r"1\.png is damaged, .* take it out of photos/"):
        load_footage(folder)


def test_a_folder_of_footage_that_cannot_be_read_is_named(footage_dir, monkeypatch):
    def refused(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(ReadError, match=r"photos cannot be read: Permission denied"):
        load_footage(footage_dir)


def test_a_clip_that_is_too_short_is_told_where_there_is_nothing_else(footage_dir):
    shutil.rmtree(footage_dir / "photos")
    with pytest.raises(ReadError, match=r"A clip has 23 frames at least"):
        load_footage(footage_dir, frames=21)


@pytest.mark.parametrize(
    "change",
    [
        *[{"frames": 2}, {"width": 0}, {"patch": 0}, {"seed": -1}, {"encoder_blocks": (1, 1)}],
        *[
            {"learning_rate": float("nan")},
            {"learning_rate": -1.0},
            {"group_blocks": (1, 1, 1, -1)},
        ],
    ],
    ids=str,
)
def test_settings_that_make_no_network(change):
    with pytest.raises(ConfigError):
        TrainConfig(data="x", output="y", **change)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_loader_that_hangs_ends_the_run(footage_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("mhnet_video.pipelines.train.LOADER_SECONDS", 1)
    monkeypatch.setattr(CleanWindows, "__getitem__", lambda *_: threading.Event().wait())
    with pytest.raises(RuntimeError, match="timed out"):
        train(settings(footage_dir, tmp_path / "run"))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_processes_train_as_one(footage_dir, tmp_path):
    """Two processes, of other windows each, take the steps of one with all of these windows."""
    script = tmp_path / "run.py"
    script.write_text(
        "import os, sys, torch\n"
        f"sys.path[:] = {sys.path!r}\n"
        "from test_train import settings\n"
        "from waiting import Ticks\n"
        "from mhnet_video.pipelines import train as module\n"
        "module.time = Ticks()\n"
        "torch.set_num_threads(1)\n"
        "rank = os.environ['RANK']\n"
        "networks, real = [], module.MHNet\n"
        "module.MHNet = lambda sizes: networks.append(real(sizes)) or networks[-1]\n"
        "module.train(settings(sys.argv[1], sys.argv[2], minutes=0.05))\n"
        "torch.save(networks[0].state_dict(), f'{sys.argv[2]}/rank{rank}.pt')\n"
    )
    output = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # the name of this machine may lead nowhere, and they would wait for one another
    command += ["--local-addr=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["GLOO_SOCKET_IFNAME"] = "lo"
    processes.run(
        [*command, str(script), str(footage_dir), str(output)],
        check=True,
        env=environment,
        seconds=200,
    )
    first, second = (torch.load(output / f"rank{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3 and saved["seen"] == 12
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
