"""Evidence says what was done to each frame, and `verify` finds what is no longer so."""

import contextlib
import hashlib
import json
import shutil
import sys
import threading
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clips import Audio, Clip, Video, every
from processes import run
from standin import Held, StandIn
from waiting import Ticks

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, ReadError, WriteError
from mhnet_video.frame import Frame, Pair, PixelLayout
from mhnet_video.model.weights import MODELS, load_model, save_pretrained
from mhnet_video.pipelines.evidence import (
    Digest,
    EvidenceWriter,
    Restoration,
    change_between,
    evidence_path,
    remark_of,
)
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.pipelines.segments import restore_in_segments
from mhnet_video.pipelines.verify import verify
from mhnet_video.restoration.restorer import Restorer

CLIP = Clip(name="clip.mkv", video=(Video(times=every(40, 6)),), metadata={"comment": "Mine"})
EVIDENCE = RestoreConfig(evidence=True)
LOSSLESS = RestoreConfig(evidence=True, encoder="ffv1")
GRAY = PixelLayout("gray", "gray", 8)


def darkened(frame: Frame) -> Frame:
    """The frame with the left half of its luma four levels darker, where it is not black."""
    luma = frame.planes[0].copy()
    half = luma[:, : luma.shape[1] // 2]
    half -= np.minimum(half, 4)
    return replace(frame, planes=(luma, *frame.planes[1:]))


def restored(folder: Path, config: RestoreConfig = EVIDENCE, **options) -> Path:
    """A clip restored in a folder; where its evidence is."""
    source, output = CLIP.make(folder), folder / "out.mkv"
    stand_in = StandIn(darkened)
    stand_in.name = "realtime"
    report = restore_video(source, output, config, restorer=stand_in, **options)
    assert report.files == {"evidence": str(evidence_path(output))}
    return evidence_path(output)


def rewritten(path: Path, *, is_signed: bool = True, **changes) -> Path:
    """Evidence with other values; with its digest where it is to look as if it were written so."""
    told = json.loads(path.read_text()) | changes
    if is_signed:
        digest = Digest()
        for row in (*told["frames"], *told["decoded"]):
            digest.add(row)
        rows = ("format", "columns", "frames", "decoded", "digest")
        digest.add({key: value for key, value in told.items() if key not in rows})
        told["digest"] = digest.shown
    path.write_text(json.dumps(told, indent=3))
    return path


def test_each_frame_has_its_time_and_its_change(tmp_path):
    told = json.loads(restored(tmp_path, LOSSLESS).read_text())
    assert told["columns"]["decoded"] == ["pts", "changed", "mean"]
    assert told["columns"]["frames"] == ["source", *told["columns"]["decoded"]]
    assert [row[:2] for row in told["frames"]] == [[0, 40 * number] for number in range(6)]
    for _, _, changed, mean in told["frames"]:
        assert 0.4 < changed <= 0.5  # the corner of each picture is black
        assert 1.6 < mean <= 2.0
    # nothing was lost on the way to the file
    assert told["decoded"] == [row[1:] for row in told["frames"]]


@pytest.mark.parametrize("in_segments", [False, True])
def test_a_look_for_drops_takes_no_frame_from_it(in_segments, tmp_path):
    """There is one where rain is taken out."""
    restorer = StandIn(darkened)
    restorer.name, restorer.tasks, restorer.free = "realtime", ("derain",), lambda: None
    restore = restore_in_segments if in_segments else restore_video
    restore(CLIP.make(tmp_path), tmp_path / "out.mkv", LOSSLESS, restorer=restorer)
    told = json.loads(evidence_path(tmp_path / "out.mkv").read_text())
    assert [row[:2] for row in told["frames"]] == [[0, 40 * number] for number in range(6)]


def test_hashes_versions_and_settings_are_told(tmp_path):
    told = json.loads(restored(tmp_path).read_text())
    for file, path in (
        (*told["sources"], tmp_path / "clip.mkv"),
        (told["output"], tmp_path / "out.mkv"),
        (told["weights"], MODELS / "realtime.safetensors"),
    ):
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["versions"]["av"] == av.__version__
    assert told["settings"]["strength"] == 1.0
    assert told["interrupted"] is False


def test_weights_are_read_once_to_know_what_they_take_out(monkeypatch):
    """At the end of a long run their file may be gone."""
    read = []
    monkeypatch.setattr(
        "mhnet_video.model.weights.load_model", lambda name: read.append(name) or load_model(name)
    )
    restoration = Restoration(["clip.mkv"], "out.mkv", RestoreConfig(model="windscreen"))
    assert restoration.task == restoration.task == "raindrop"
    assert read == ["windscreen"]


@pytest.mark.parametrize("in_segments", [False, True])
def test_it_tells_of_the_restorer_that_was_passed(in_segments, tmp_path):
    source, output = CLIP.make(tmp_path), tmp_path / "out.mkv"
    keep = [[0, 0, 8, 8]]
    restorer = Restorer(task="deblur", device="cpu", strength=0.25, scale=0.5, keep=keep)
    restore = restore_in_segments if in_segments else restore_video
    restore(str(source), output, EVIDENCE, restorer=restorer)
    told = json.loads(evidence_path(output).read_text())
    settings = told["settings"]
    assert (settings["task"], settings["strength"], settings["scale"]) == ("deblur", 0.25, 0.5)
    assert settings["keep"] == keep and settings["model"] == "deblur-realtime"
    with av.open(str(output)) as container:
        comments = {key.lower(): value for key, value in container.metadata.items()}
    assert "motion blur" in comments["comment"] and "rain" not in comments["comment"]
    assert not verify(evidence_path(output)).mismatches


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out.mov", "out.avi"])
@pytest.mark.parametrize("own", [{}, {"comment": "Mine", "title": "Rain"}])
def test_the_comment_says_so_and_keeps_the_sources_own(own, name, tmp_path):
    source = replace(CLIP, metadata=own).make(tmp_path)
    report = restore_video(source, tmp_path / name, EVIDENCE, restorer=StandIn())
    with av.open(str(tmp_path / name)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    remark = remark_of("deblur")
    assert remark.endswith("taken out was motion blur.")
    assert tags["comment"] == (f"Mine\n{remark}" if own else remark)
    assert not any("comment" in loss.what for loss in report.losses)
    # what was added is not the source's
    kept = [each.lower() for each in report.kept if "information" in each]
    assert kept == (["information about the file (title, comment)"] if own else [])


def test_without_evidence_the_comment_is_the_sources(tmp_path):
    restore_video(CLIP.make(tmp_path), tmp_path / "out.mkv", restorer=StandIn())
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["COMMENT"] == "Mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mkv", "out.mkv"]


@pytest.mark.parametrize(
    "config",
    [
        EVIDENCE,
        LOSSLESS,
        replace(EVIDENCE, start=0.05, duration=0.1),
        replace(EVIDENCE, encoder="mjpeg", strength=0.5),
    ],
)
def test_what_was_just_written_holds(config, tmp_path):
    result = verify(restored(tmp_path, config))
    assert result.mismatches == ()
    assert "PTS and changes are those of the evidence" in result.lines[-1]


def test_files_that_were_moved_together_hold(tmp_path):
    (tmp_path / "a").mkdir()
    path = restored(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert verify(tmp_path / "b" / path.name).mismatches == ()


def another(path: Path) -> None:
    """The same clip, with pictures a little later and others."""
    video = replace(CLIP.video[0], seed=9, times=every(41, 6))
    replace(CLIP, name=path.name, video=(video,)).make(path.parent)


def test_another_output_is_told(tmp_path):
    path = restored(tmp_path)
    another(tmp_path / "out.mkv")
    told = verify(path).mismatches
    assert any("The output" in each and "another one" in each for each in told)
    assert any(each.startswith("The PTS in the output of frame 1 differs") for each in told)
    assert any(each.startswith("The change of frame 0 differs") for each in told)


def test_another_source_is_told(tmp_path):
    path = restored(tmp_path)
    another(tmp_path / "clip.mkv")
    told = verify(path).mismatches
    assert any("The source" in each and "another one" in each for each in told)
    assert any(each.startswith("The PTS in the source of frame 1 differs") for each in told)


def test_a_byte_of_the_outputs_end_is_told(tmp_path):
    path = restored(tmp_path)
    data = (tmp_path / "out.mkv").read_bytes()
    (tmp_path / "out.mkv").write_bytes(data + b"\0")
    assert len(verify(path).mismatches) == 1


def test_other_weights_are_told(tmp_path):
    weights = {"name": "realtime", "sha256": "0" * 64}
    (told,) = verify(rewritten(restored(tmp_path), weights=weights)).mismatches
    assert "weights" in told


@pytest.mark.parametrize("is_saved", [False, True])
def test_weights_of_ones_own_are_found_from_any_folder(is_saved, tmp_path, monkeypatch):
    (tmp_path / "here" / "own").mkdir(parents=True)
    (tmp_path / "there" / "own").mkdir(parents=True)
    shutil.copy(MODELS / "realtime.safetensors", tmp_path / "here" / "own" / "mine.safetensors")
    (tmp_path / "there" / "own" / "mine.safetensors").write_text("of another")
    weights, name = "own/mine.safetensors", "mine.safetensors"
    monkeypatch.chdir(tmp_path / "here")
    if is_saved:
        save_pretrained(load_model(weights), "own/saved")
        weights, name = "own/saved", "saved"
    CLIP.make(tmp_path / "here")
    config = replace(EVIDENCE, weights=weights, device="cpu")
    restore_video("clip.mkv", tmp_path / "out.mkv", config)
    path = evidence_path(tmp_path / "out.mkv")
    told = json.loads(path.read_text())
    assert told["model"] == told["weights"]["name"] == told["settings"]["weights"] == name
    assert (tmp_path / told["weights"]["paths"][0]).is_file()
    monkeypatch.chdir(tmp_path / "there")
    result = verify(path)
    assert not result.mismatches
    assert any("The weights file" in each and "is the one" in each for each in result.lines)
    shutil.move(tmp_path / "here", tmp_path / "elsewhere")
    assert f"The weights {name} are not here: they were not checked." in verify(path).lines


def test_evidence_makes_nobody_fetch_weights(tmp_path, monkeypatch):
    asked = []

    def download(name, **options):
        asked.append((name, options["local_files_only"]))
        raise FileNotFoundError("not in the cache")

    fake = SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    weights = {"name": "OWNER/NAME", "sha256": "0" * 64}
    result = verify(rewritten(restored(tmp_path), weights=weights))
    assert asked == [("OWNER/NAME", True)]
    assert "The weights OWNER/NAME are not here: they were not checked." in result.lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows, decoded: rows[2].__setitem__(1, 81), "PTS in the source of frame 2 differs."),
        (lambda rows, decoded: decoded[2].__setitem__(0, 81), "PTS in the output of frame 2"),
        (lambda rows, decoded: decoded[3].__setitem__(1, 0.1), "The change of frame 3 differs."),
        (lambda rows, decoded: decoded[3].__setitem__(2, 9.9), "The change of frame 3 differs."),
        (lambda rows, decoded: decoded[3].__setitem__(2, "9"), "The change of frame 3 differs."),
        (lambda rows, decoded: decoded[3].__setitem__(2, None), "The change of frame 3 differs."),
        (lambda rows, decoded: rows.pop(), "has 6 frames, and the evidence names 5 restored"),
        (lambda rows, decoded: decoded.pop(), "has 6 frames, and the evidence names 5 decoded"),
        (lambda rows, decoded: [d.__setitem__(2, 9.9) for d in decoded], "that of 5 further ones"),
    ],
)
def test_rows_that_do_not_hold_are_told(change, said, tmp_path):
    path = restored(tmp_path)
    told = json.loads(path.read_text())
    change(told["frames"], told["decoded"])
    mismatches = verify(rewritten(path, frames=told["frames"], decoded=told["decoded"])).mismatches
    assert len(mismatches) == 1
    assert said in mismatches[0]


def test_evidence_that_was_altered_is_told(tmp_path):
    path = rewritten(restored(tmp_path), is_signed=False, model="quality")
    assert verify(path).mismatches == ("The evidence itself was altered: its digest differs.",)


def test_columns_of_other_names_are_told(tmp_path):
    path = rewritten(restored(tmp_path), columns={"frames": [], "decoded": []})
    assert verify(path).mismatches == ("The evidence itself was altered: its digest differs.",)


def test_a_source_is_found_from_a_folder_that_is_a_link(tmp_path):
    """Where `..` leads out of what the link points to."""
    source, folder, link = CLIP.make(tmp_path), tmp_path / "deep" / "a" / "b", tmp_path / "link"
    folder.mkdir(parents=True)
    link.symlink_to(folder, target_is_directory=True)
    restore_video(source, link / "out.mkv", EVIDENCE, restorer=StandIn(darkened))
    for place in (link, folder):
        result = verify(evidence_path(place / "out.mkv"))
        assert result.mismatches == ()
        assert any("The source" in line and "is the one" in line for line in result.lines)


def test_another_layout_of_the_json_holds(tmp_path):
    path = restored(tmp_path)
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert verify(path).mismatches == ()


def test_without_the_source_the_rest_is_checked(tmp_path):
    path = restored(tmp_path)
    (tmp_path / "clip.mkv").unlink()
    result = verify(path)
    assert result.mismatches == ()
    assert any("The source is not there" in line for line in result.lines)
    another(tmp_path / "out.mkv")
    assert len(verify(path).mismatches) == 2


def test_a_missing_output_is_told(tmp_path):
    path = restored(tmp_path)
    (tmp_path / "out.mkv").unlink()
    assert verify(path).mismatches == (
        "The output is neither where it was nor beside the evidence.",
    )


def test_an_output_that_is_no_video_any_more_is_told(tmp_path):
    path = restored(tmp_path)
    (tmp_path / "out.mkv").write_bytes(b"nothing")
    assert any("The frames cannot be compared" in each for each in verify(path).mismatches)


def test_a_run_that_was_interrupted_says_so_and_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("mhnet_video.pipelines.restore.time", Ticks())  # every frame is told
    stop = threading.Event()
    source = replace(CLIP, video=(Video(times=every(40, 400)),)).make(tmp_path)

    def stop_soon(progress):
        if progress.frames > 3:
            stop.set()

    output = tmp_path / "out.mkv"
    report = restore_video(
        source,
        output,
        EVIDENCE,
        restorer=Held(50, stop, darkened),
        stop=stop,
        on_progress=stop_soon,
    )
    assert report.interrupted
    told = json.loads(evidence_path(output).read_text())
    assert told["interrupted"] is True
    assert len(told["frames"]) == report.frames <= 51
    result = verify(evidence_path(output))
    assert result.mismatches == ()
    assert "The run was interrupted" in result.lines[0]
    # without that word, the rest of the source would be missing
    path = rewritten(evidence_path(output), interrupted=False)
    assert verify(path).mismatches == ("The source goes on behind the output's end.",)


def test_existing_evidence_is_not_replaced_and_no_work_is_done(tmp_path):
    evidence_path(tmp_path / "out.mkv").write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        restored(tmp_path)
    assert not (tmp_path / "out.mkv").exists()
    assert evidence_path(tmp_path / "out.mkv").read_text() == "mine"
    restored(tmp_path, replace(EVIDENCE, overwrite=True))


def test_a_run_that_fails_leaves_no_evidence(tmp_path):
    with pytest.raises(RuntimeError):
        restore_video(
            CLIP.make(tmp_path), tmp_path / "out.mkv", EVIDENCE, restorer=StandIn(fail_at=3)
        )
    assert not list(tmp_path.glob("*.json"))


def test_there_is_no_evidence_of_a_source_that_changes_meanwhile(tmp_path):
    source = CLIP.make(tmp_path)

    def touch(frame):
        with source.open("ab") as file:
            file.write(b"\0")
        return frame

    with pytest.raises(ReadError, match="was changed while it was read"):
        restore_video(source, tmp_path / "out.mkv", EVIDENCE, restorer=StandIn(touch))
    assert (tmp_path / "out.mkv").exists()
    assert not list(tmp_path.glob("*.json"))


def test_only_video_files_have_evidence(tmp_path):
    CLIP.make(tmp_path)
    with pytest.raises(ConfigError, match="leave --evidence out"):
        restore_video("-", tmp_path / "out.mkv", EVIDENCE, restorer=StandIn())
    with pytest.raises(ConfigError, match="leave --evidence out"):
        restore_video(tmp_path / "clip.mkv", tmp_path / "out.png", EVIDENCE, restorer=StandIn())
    with pytest.raises(ConfigError, match="no evidence"):
        restore_video(tmp_path, tmp_path / "dry", EVIDENCE, restorer=StandIn())
    with pytest.raises(ConfigError, match="leave compare out"):
        RestoreConfig(evidence=True, compare=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"format": "another"}',
        '{"format": "mhnet-video evidence 1"}',
    ],
)
def test_what_is_no_evidence_is_refused(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ReadError, match=r"x\.json is (no evidence|damaged)"):
        verify(path)


def test_values_of_another_kind_end_in_a_sentence(tmp_path):
    path = restored(tmp_path)
    whole = path.read_text()
    for key in json.loads(whole):
        for value in (None, "x", {}, [[None, None, None]] * 6):
            path.write_text(whole)
            rewritten(path, is_signed=False, **{key: value})
            if key == "columns" or (key, value) == ("format", None):
                continue
            with contextlib.suppress(ReadError):
                assert verify(path).mismatches
    with pytest.raises(ReadError, match="cannot be read"):
        verify(tmp_path)


def gray(value: int, shape: tuple[int, int] = (4, 4), bits: int = 8) -> Frame:
    kind = np.uint8 if bits == 8 else np.uint16
    layout = replace(GRAY, bits=bits)
    return Frame((np.full(shape, value, kind),), layout, 0, Fraction(1, 25))


def test_a_change_is_in_levels_of_eight_bits():
    assert change_between(gray(10), gray(13)) == (1.0, 3.0)
    assert change_between(gray(40, bits=10), gray(52, bits=10)) == (1.0, 3.0)
    assert change_between(gray(10), gray(52, bits=10)) == (1.0, 3.0)
    assert change_between(gray(10), gray(10)) == (0.0, 0.0)
    assert change_between(gray(10), gray(10, shape=(4, 5))) is None


def test_frames_do_not_pile_up_in_memory(tmp_path):
    pair = Pair(gray(1), gray(2))
    with EvidenceWriter(
        Restoration([CLIP.make(tmp_path)], tmp_path / "out.mkv", EVIDENCE)
    ) as evidence:
        tracemalloc.start()
        for _ in evidence.watch(pair for _ in range(5_000)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.slow
def test_the_command_line_ends_with_one_where_something_differs(tmp_path):
    source = replace(CLIP, audio=(Audio(seconds=0.2),)).make(tmp_path)
    command = [sys.executable, "-m", "mhnet_video"]
    done = run([*command, str(source), str(tmp_path / "out.mp4"), "--evidence"])
    path = evidence_path(tmp_path / "out.mp4")
    assert f"  evidence: {path}" in done.stdout.splitlines()
    assert run([*command, "verify", str(path)]).returncode == 0
    (tmp_path / "out.mp4").write_bytes((tmp_path / "out.mp4").read_bytes() + b"\0\0\0\x08free")
    failed = run([*command, "verify", str(path), "--json"], check=False)
    assert failed.returncode == 1
    assert len(json.loads(failed.stdout)["mismatches"]) == 1
