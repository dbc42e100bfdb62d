"""Tasks: what ships for each, what weights are for, and two that are done in turn."""

import json
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import probe
import pytest
import rainy_road
import torch
from batch_jobs import OwnProcess
from clips import Clip, Video, every
from test_llvm_engine import SMALL, make_network

import mhnet_video.model.weights
import mhnet_video.pipelines.batch
import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video import RestoreConfig, Restorer, restore_video
from mhnet_video.batch.rows import Status
from mhnet_video.cli.main import main
from mhnet_video.config import BatchConfig, LiveConfig, TrainConfig
from mhnet_video.errors import ConfigError, WeightsError
from mhnet_video.live.adaptive_restorer import AdaptiveRestorer
from mhnet_video.live.model_choice import models_at_hand
from mhnet_video.live.session import Live
from mhnet_video.model.weights import (
    list_models,
    load_model,
    models_of,
    save_weights,
    task_done,
)
from mhnet_video.pipelines.batch import run_batch
from mhnet_video.pipelines.evaluate import evaluate
from mhnet_video.pipelines.evidence import _weights
from mhnet_video.pipelines.segments import restore_in_segments
from mhnet_video.restoration.dry_look import DryLook
from mhnet_video.restoration.rgb_frames import frame_of, picture_of
from mhnet_video.restoration.task_step import TaskStep
from mhnet_video.tasks import TASKS, TRAINED, check_task

DEVICE = {"device": "cpu", "engine": "torch"}
NEW = ("deblur", "derain+deblur")


def panned(count, step=2, level=0):
    """RGB pictures of a camera that pans."""
    coarse = np.random.default_rng(level).uniform(20, 230, (20, 80, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (1280, 96), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    pictures = [cv2.getRectSubPix(scene, (128, 96), (100 + step * i, 48)) for i in range(count)]
    return [picture.astype(np.uint8) for picture in pictures]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights for rain and for blur, of three and of five frames."""
    folder = tmp_path_factory.mktemp("weights")
    for task, frames in (("derain", 3), ("deblur", 5)):
        torch.manual_seed(frames)
        network = make_network(width=8, patch=2, frames=frames, align=True, **SMALL)
        network.task = task
        about = f"takes out {TASKS[task].removes}"
        save_weights(network, folder / f"{task}.safetensors", description=about, training={})
    return folder


@pytest.fixture
def shipped(folder, monkeypatch):
    """These weights as those that ship."""
    monkeypatch.setattr(mhnet_video.model.weights, "MODELS", folder)
    for task in ("derain", "deblur"):
        models = {"cpu": task, "cuda": task}
        monkeypatch.setitem(TASKS, task, replace_models(TASKS[task], models))


def replace_models(task, models):
    return replace(task, models=models)


def test_what_is_named_as_a_default_ships_and_is_for_its_task():
    found = {model.name: model.task for model in list_models()}
    for name, task in TASKS.items():
        assert {found[model] for model in task.models.values()} <= {name}
        assert set(task.steps) <= set(TRAINED) and not (task.steps and task.models)
    for name in ("rain", "deblur+derain"):
        with pytest.raises(
            ConfigError, match="task must be one of derain, .*, not " + re.escape(name)
        ):
            check_task(name)
    with pytest.raises(ConfigError, match="one of derain, raindrop, deblur, not derain"):
        TrainConfig(data="", output="", task="derain+deblur")


def test_a_file_of_weights_knows_its_task(folder, tmp_path):
    network = load_model(folder / "deblur.safetensors")
    assert network.task == "deblur"
    save_weights(network, tmp_path / "again.safetensors", description="", training={"steps": 1})
    assert load_model(tmp_path / "again.safetensors").task == "deblur"
    assert load_model("realtime").task == "derain"
    assert load_model("windscreen-realtime").task == "raindrop"


def test_weights_of_another_task_are_refused(folder):
    rain, blur = (str(folder / f"{task}.safetensors") for task in ("derain", "deblur"))
    assert models_of("deblur", weights=blur) == (blur,)
    # names as reports have them
    both = "realtime+deblur-realtime"
    assert models_of(None, both) == ("realtime", "deblur-realtime")
    assert task_done(None, both) == "derain+deblur"
    assert "+" in str(_weights(both, "derain", "/")["sha256"])
    with pytest.raises(ConfigError):
        models_of(None, "deblur-realtime+realtime")
    with pytest.raises(WeightsError, match=r"no model or weights file nothing\+realtime"):
        load_model(*models_of(None, "nothing+realtime"))
    assert models_of(None, weights=blur) == (blur,)
    with pytest.raises(ConfigError, match="takes out rain; leave --task out, or name weights for"):
        models_of("deblur", weights=rain)
    with pytest.raises(ConfigError, match="takes out rain and drops on the glass"):
        models_of("derain+deblur", "windscreen-realtime")
    with pytest.raises(ConfigError, match="deblur-realtime takes out motion blur; leave --task"):
        models_of("derain", both)
    with pytest.raises(ConfigError, match="the network takes out rain; leave task out"):
        Restorer(load_model(rain), task="deblur")
    with pytest.raises(ConfigError, match="the network takes out motion blur; leave task out"):
        Restorer(load_model(blur), task="derain")


@pytest.mark.parametrize("named", ["windscreen-realtime", "weights"])
def test_rain_alone_is_not_asked_of_weights_for_more(named, folder, tmp_path, capsys):
    options = ["--task", "derain", "--device", "cpu", "--model", named]
    settings = {"task": "derain", "device": "cpu", "model": named}
    if named == "weights":
        blur = str(folder / "deblur.safetensors")
        options[-2:] = ["--weights", blur]
        del settings["model"]
        settings["weights"] = blur
    (tmp_path / "in").mkdir()
    Clip(name="in/in.mp4", video=(Video(times=every(40, 4)),)).make(tmp_path)
    clip, out = str(tmp_path / "in" / "in.mp4"), str(tmp_path / "out")
    jobs = [
        [clip, out + ".mp4"],
        [clip, out + ".mp4", "--resume"],
        [clip, out + ".mp4", "--evidence"],
        ["batch", str(tmp_path / "in"), out],
        ["evaluate", clip, clip],
        ["evaluate", clip],
        ["live", clip, "--record", out + ".mp4"],
    ]
    for job in jobs:
        assert main([*job, *options]) == 2, job
        said = capsys.readouterr().err
        assert "; leave --task out, or name weights for derain" in said
        assert not (tmp_path / "out.mp4").exists() and not list(tmp_path.glob(".*"))
    with pytest.raises(ConfigError, match="leave --task out, or name weights for derain"):
        Restorer(**settings)


def test_a_key_changes_the_model_and_not_the_task():
    config = LiveConfig(model="windscreen-realtime", device="cpu", engine="torch", scale=1.0)
    restorer = AdaptiveRestorer(config)
    assert "realtime" not in restorer.next_model().split(", ")
    restorer.close()


def test_each_step_takes_the_weights_that_are_for_it(folder, shipped):
    blur = str(folder / "deblur.safetensors")
    assert models_of("derain+deblur") == ("derain", "deblur")
    assert models_of("derain+deblur", weights=blur) == ("derain", blur)
    assert models_of("derain+deblur", "derain+deblur") == ("derain", "deblur")
    assert models_of("derain+deblur", "deblur") == ("derain", "deblur")
    assert models_at_hand(task="derain+deblur") == ["derain+deblur"]
    assert models_at_hand(task="deblur") == ["deblur"]


def test_where_no_weights_ship_one_sentence_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "deblur", replace_models(TASKS["deblur"], {}))
    clip = Clip(name="in.mp4", video=(Video(times=every(40, 4)),)).make(tmp_path)
    for task in ("deblur", "derain+deblur"):
        assert main([str(clip), str(tmp_path / "out.mp4"), "--task", task]) == 2
        said = capsys.readouterr().err
        assert "no weights for deblur ship yet; name a file of them by --weights" in said
        assert "Traceback" not in said and not (tmp_path / "out.mp4").exists()


def restorers(folder, **options):
    names = ("derain", "deblur")
    first, second = (
        Restorer(weights=folder / f"{name}.safetensors", **DEVICE, **options) for name in names
    )
    return first, second


@pytest.mark.parametrize("is_filtered", [True, False])
@pytest.mark.slow
def test_two_tasks_in_turn_do_what_one_after_the_other_does(folder, shipped, is_filtered):
    pictures = panned(15)
    first, second = restorers(folder, is_filtered=is_filtered)
    expected = np.stack(list(second.restore(list(first.restore(pictures)))))
    both = Restorer(task="derain+deblur", **DEVICE, is_filtered=is_filtered)
    assert both.name == "derain+deblur"
    found = np.stack(list(both.restore(pictures)))
    assert np.abs(found - np.stack(pictures).astype(int)).mean() > 1
    assert np.array_equal(found, expected)
    pushed = [each for picture in pictures for each in both.push(picture)] + both.flush()
    assert np.array_equal(np.stack(pushed), expected)


def test_pairs_of_two_tasks_have_the_decoded_frames(folder, shipped):
    frames = [frame_of(picture, index) for index, picture in enumerate(panned(18))]
    pairs = list(Restorer(task="derain+deblur", **DEVICE).pairs(frames))
    assert [pair.source for pair in pairs] == frames
    assert [pair.restored.pts for pair in pairs] == list(range(18))


def test_single_frames_of_two_tasks_see_restored_neighbours(folder, shipped):
    frames = [frame_of(picture, index) for index, picture in enumerate(panned(12))]
    first, second = restorers(folder)
    both = Restorer(task="derain+deblur", **DEVICE)
    assert (both.behind, both.ahead) == (3, 3)
    restored = [first.restore_frame(frames, index) for index in range(12)]
    for index in (4, 5, 6):
        expected = picture_of(second.restore_frame(restored, index))
        around = frames[index - both.behind : index + both.ahead + 1]
        assert np.array_equal(picture_of(both.restore_frame(around, both.behind)), expected)


def test_frames_that_are_restored_already_are_not_restored_again(folder, shipped, monkeypatch):
    frames = [frame_of(picture, index) for index, picture in enumerate(panned(12))]
    both = Restorer(task="derain+deblur", **DEVICE)
    asked = []
    plain = TaskStep.restore_frame

    def counted(step, some, index, *others):
        asked.append((step.network.task, some[index].pts))
        return plain(step, some, index, *others)

    monkeypatch.setattr(TaskStep, "restore_frame", counted)
    both.restore_frame(frames, 5)
    both.restore_frame(frames, 6)
    assert [pts for task, pts in asked if task == "derain"] == [3, 4, 5, 6, 7, 8]
    assert [pts for task, pts in asked if task == "deblur"] == [5, 6]
    both.strength = 0.5
    both.restore_frame(frames, 6)
    assert len(asked) == 8 + 6


def test_single_frames_of_two_tasks_are_restored_without_a_look(folder, shipped, monkeypatch):
    """What a look leaves out would not tell what both take."""
    looks = []
    monkeypatch.setattr(DryLook, "marked", lambda look, window: looks.append(window) or window)
    frames = [frame_of(picture, index) for index, picture in enumerate(panned(7))]
    restorers(folder)[0].restore_frame(frames, 3, is_live=True)
    assert len(looks) == 1
    both = Restorer(task="derain+deblur", **DEVICE)
    both.restore_frame(frames, 3, is_live=True)
    assert len(looks) == 1


def test_blur_is_not_filtered_where_nothing_moves(folder):
    pictures = [
        np.clip(panned(1)[0] + np.random.normal(0, 2, (96, 128, 3)), 0, 255) for _ in "x" * 9
    ]
    pictures = [picture.astype(np.uint8) for picture in pictures]
    first, second = restorers(folder)
    for restorer, is_filtered in ((first, True), (second, False)):
        plain = Restorer(restorer.network, **DEVICE, is_filtered=False)
        found, expected = (np.stack(list(each.restore(pictures))) for each in (restorer, plain))
        assert np.array_equal(found, expected) != is_filtered


def test_files_and_live_runs_take_two_tasks(folder, shipped, tmp_path):
    clip = str(Clip(video=(Video(times=every(40, 12), width=128, height=96),)).make(tmp_path))
    config = RestoreConfig(task="derain+deblur", **DEVICE, evidence=True)
    report = restore_video(clip, tmp_path / "out.mp4", config)
    assert (report.frames, report.model) == (12, "derain+deblur")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "taken out was rain, then motion blur." in container.metadata["comment"]
    assert main(["verify", report.files["evidence"]]) == 0
    live = LiveConfig(task="derain+deblur", **DEVICE, scale=1.0, loop=True)
    with Live(clip, live) as frames:
        for _ in range(3):
            frame = next(frames)
            assert not np.array_equal(frame.after.planes[0], frame.before.planes[0])


def config_of(task, **more):
    return RestoreConfig(task=task, **DEVICE, **more)


def in_a_folder(folder, pictures):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index:02}.png"), picture[..., ::-1])
    return folder


@pytest.mark.parametrize("task", NEW)
def test_pictures_of_a_folder_are_frames_of_a_clip(task, shipped, tmp_path):
    pictures = panned(7)
    in_a_folder(tmp_path / "in", pictures)
    restore_video(tmp_path / "in", tmp_path / "out", config_of(task))
    found = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "out").iterdir())]
    expected = list(Restorer(task=task, **DEVICE).restore(pictures))
    assert len(found) == 7 and np.array_equal(found, expected)
    restore_video(tmp_path / "in" / "03.png", tmp_path / "out.png", config_of(task))
    alone = cv2.imread(str(tmp_path / "out.png"))[..., ::-1]
    assert np.array_equal(alone, next(Restorer(task=task, **DEVICE).restore(pictures[3:4])))
    assert not np.array_equal(alone, expected[3])


@pytest.mark.parametrize("task", NEW)
def test_tasks_are_evaluated(task, shipped, tmp_path, capsys):
    pictures = panned(5)
    blurred = [cv2.blur(picture, (7, 1)) for picture in pictures]
    folders = [
        str(in_a_folder(tmp_path / name, each))
        for name, each in (("blurred", blurred), ("sharp", pictures))
    ]
    result = evaluate(*folders, task=task, **DEVICE)
    assert result.model == task
    restored = list(Restorer(task=task, **DEVICE).restore(blurred))
    error = np.mean((np.float64(restored[2]) - pictures[2]) ** 2)
    assert result.rows[2].restored.psnr_rgb == pytest.approx(10 * np.log10(255**2 / error))
    assert main(["evaluate", *folders, "--task", task, "--device", "cpu"]) == 0
    assert task in capsys.readouterr().out


def test_info_tells_what_each_model_takes_out(shipped, capsys):
    assert main(["info", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert {model["name"]: model["task"] for model in models} == {
        "derain": "derain",
        "deblur": "deblur",
    }
    assert main(["info"]) == 0
    assert re.search("^deblur .*takes out motion blur", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("task", NEW)
def test_a_batch_knows_what_was_done_by_which_weights(task, folder, shipped, tmp_path, monkeypatch):
    weights = shutil.copytree(folder, tmp_path / "weights")
    monkeypatch.setattr(mhnet_video.model.weights, "MODELS", weights)
    monkeypatch.setattr(mhnet_video.pipelines.batch, "WorkerPool", OwnProcess)
    (tmp_path / "card").mkdir()
    Clip(name="card/in.mp4", video=(Video(times=every(40, 6)),)).make(tmp_path)
    threads = torch.get_num_threads()

    def statuses(task):
        report = run_batch(
            [tmp_path / "card"], tmp_path / "out", config_of(task), BatchConfig(jobs=1)
        )
        return [row.status for row in report.rows]

    try:
        assert [statuses(task), statuses(task)] == [[Status.DONE], [Status.BEFORE]]
        other = load_model(weights / "deblur.safetensors")
        other.ending.weight.mul_(0.5)
        save_weights(other, weights / "deblur.safetensors", description="", training={})
        assert statuses(task) == [Status.DONE]
        assert statuses("derain") == [Status.DONE]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_segments_resumed_and_trips_are_what_one_run_gives(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 1.2)
    film = rainy_road.film(tmp_path / "road.mp4", 90)
    # small pictures are enlarged for deblurring, which takes three times as long
    task = "derain+deblur"
    config = replace(rainy_road.EXACT, task=task, scale=1.0, **DEVICE)
    report = restore_video(film, tmp_path / "one.mkv", config)
    wanted = probe.pictures(tmp_path / "one.mkv").astype(int)
    stop = threading.Event()

    def stop_in_the_second_segment(progress):
        if progress.frames > 36:
            stop.set()

    def close(path):
        found = probe.pictures(path).astype(int)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1

    out = tmp_path / "out.mkv"
    part = restore_in_segments(
        [film], out, config, on_progress=stop_in_the_second_segment, stop=stop
    )
    assert part.interrupted and not out.exists()
    whole = restore_in_segments([film], out, config)
    assert (whole.model, whole.frames) == (report.model, report.frames) == (task, 90)
    close(out)
    files = rainy_road.cut(film, tmp_path, [0, 30, 60])
    restore_in_segments(files, tmp_path / "trip.mkv", config)
    close(tmp_path / "trip.mkv")


@pytest.mark.parametrize("task", NEW)
def test_evidence_names_the_weights_of_every_step(task, folder, shipped, tmp_path, monkeypatch):
    weights = shutil.copytree(folder, tmp_path / "weights")
    monkeypatch.setattr(mhnet_video.model.weights, "MODELS", weights)
    clip = Clip(name="in.mp4", video=(Video(times=every(40, 5)),)).make(tmp_path)
    report = restore_video(clip, tmp_path / "out.mp4", config_of(task, evidence=True))
    evidence = report.files["evidence"]
    assert json.loads(Path(evidence).read_text())["weights"]["name"] == task
    assert main(["verify", evidence]) == 0
    path = weights / "deblur.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    assert main(["verify", evidence]) == 1


def test_evidence_tells_what_named_weights_take_out(folder, tmp_path):
    weights = str(folder / "deblur.safetensors")
    assert task_done(None, weights=weights) == "deblur"
    assert task_done(None) == task_done("derain") == "derain"
    clip = Clip(name="in.mp4", video=(Video(times=every(40, 3)),)).make(tmp_path)
    restore_video(clip, tmp_path / "out.mp4", RestoreConfig(weights=weights, evidence=True))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["comment"].endswith("taken out was motion blur.")


@pytest.mark.parametrize("task", NEW)
def test_what_is_kept_is_kept_by_every_step(task, shipped):
    pictures = panned(8)
    kept = list(Restorer(task=task, keep=[(16, 24, 40, 32)], **DEVICE).restore(pictures))
    box = np.s_[:, 24:56, 16:56]
    assert np.array_equal(np.stack(kept)[box], np.stack(pictures)[box])
    assert not np.array_equal(kept, pictures)
    assert np.array_equal(
        list(Restorer(task=task, strength=0, **DEVICE).restore(pictures)), pictures
    )


def test_where_networks_find_nothing_frames_are_as_they_came(
    folder, shipped, tmp_path, monkeypatch
):
    weights = shutil.copytree(folder, tmp_path / "weights")
    monkeypatch.setattr(mhnet_video.model.weights, "MODELS", weights)
    for name in ("derain", "deblur"):
        network = load_model(weights / f"{name}.safetensors")
        network.ending.weight.zero_()
        save_weights(network, weights / f"{name}.safetensors", description="", training={})
    clip = Clip(name="in.mkv", video=(Video(times=every(40, 9)),)).make(tmp_path)
    restore_video(clip, tmp_path / "out.mkv", config_of("derain+deblur", encoder="ffv1"))
    found = probe.pictures(tmp_path / "out.mkv")
    assert np.array_equal(found, probe.pictures(clip))


@pytest.mark.parametrize("task", NEW)
def test_live_waits_for_the_neighbours_of_all_steps(task, shipped, tmp_path):
    clip = str(Clip(video=(Video(times=every(40, 12), width=128, height=96),)).make(tmp_path))
    live = LiveConfig(task=task, **DEVICE, scale=1.0, loop=True)
    with Live(clip, live) as frames:
        frame = next(frames)
    assert not np.array_equal(frame.after.planes[0], frame.before.planes[0])


def test_a_batch_does_not_look_for_rain_where_blur_is_taken_out(folder, tmp_path):
    config = RestoreConfig(task="deblur", weights=str(folder / "deblur.safetensors"), **DEVICE)
    Clip(name="in.mp4", video=(Video(times=every(40, 6)),)).make(tmp_path)
    with pytest.raises(ConfigError, match="no reason to leave motion blur in it; leave --dry out"):
        run_batch([tmp_path], tmp_path / "out", config, BatchConfig(dry="copy"))
    config = replace(config, task=None)
    with pytest.raises(ConfigError, match="no reason to leave motion blur in it"):
        run_batch([tmp_path], tmp_path / "out", config, BatchConfig(dry="copy"))
