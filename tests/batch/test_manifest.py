"""What counts as done, and who may make an output."""

import errno
import json
import os
import sys
from dataclasses import replace

import processes
import pytest

from mhnet_video.batch.claim import Claim
from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.manifest import Entry, Manifest, check_unchanged, identify
from mhnet_video.batch.recipe import recipe_of
from mhnet_video.batch.work import Work
from mhnet_video.config import RestoreConfig

RECIPE = {"strength": 1.0, "weights_sha256": "ab"}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out" / OWN_FOLDER).mkdir(parents=True)
    return tmp_path / "out"


@pytest.fixture
def work(tmp_path, out):
    """A work with its source and its output."""
    source = tmp_path / "in.mp4"
    source.write_bytes(os.urandom(200_000))
    (out / "in.mp4").write_bytes(os.urandom(100_000))
    return Work(sources=(source,), output=out / "in.mp4", key="in.mp4")


def entry_of(work, recipe=RECIPE, **more):
    sources = tuple(identify(path) for path in work.sources)
    result = identify(work.output)
    return Entry(output=work.key, result=result, sources=sources, recipe=recipe, **more)


@pytest.fixture
def manifest(out, work):
    """One that knows of the work, and has it from another process."""
    with Manifest(out / OWN_FOLDER) as other:
        other.add(entry_of(work))
    with Manifest(out / OWN_FOLDER) as manifest:
        manifest.refresh()
        yield manifest


def test_what_is_written_down_is_done(manifest, work):
    assert manifest.is_done(work, RECIPE)
    assert manifest.has_made(work, work.output)


def test_other_settings_do_it_anew_and_may_replace_the_output(manifest, work):
    assert not manifest.is_done(work, RECIPE | {"strength": 0.5})
    assert not manifest.is_done(work, RECIPE | {"weights_sha256": "cd"})
    assert manifest.has_made(work, work.output)


@pytest.mark.parametrize("place", [0, 100_000, 199_999])
def test_another_source_is_done_anew(manifest, work, place):
    status = work.sources[0].stat()
    with open(work.sources[0], "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(work.sources[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not manifest.is_done(work, RECIPE)
    assert manifest.has_made(work, work.output)


def test_a_source_of_another_time_is_the_same(manifest, work):
    """A card's times are those of another hour where summer time has ended."""
    os.utime(work.sources[0], (1, 1))
    assert manifest.is_done(work, RECIPE)
    work.sources[0].write_bytes(work.sources[0].read_bytes() + b"more")
    assert not manifest.is_done(work, RECIPE)


def test_an_output_that_is_gone_or_changed_is_not_done(manifest, work):
    content = work.output.read_bytes()
    work.output.unlink()
    assert not manifest.is_done(work, RECIPE)
    work.output.write_bytes(content)  # as a copy of a backup is: at another time
    assert manifest.is_done(work, RECIPE)
    work.output.write_bytes(content + b"more")
    assert not manifest.is_done(work, RECIPE)
    assert not manifest.has_made(work, work.output)


def test_a_file_beside_the_output_is_a_part_of_the_work(out, work):
    track = out / "in.gpx"
    track.write_bytes(b"a track")
    with Manifest(out / OWN_FOLDER) as manifest:
        manifest.add(entry_of(work, companions={track.name: identify(track)}))
        manifest.refresh()
        assert manifest.is_done(work, RECIPE)
        assert manifest.has_made(work, track)
        track.write_bytes(b"my own")
        assert not manifest.is_done(work, RECIPE)
        assert not manifest.has_made(work, track)
        track.unlink()
        assert not manifest.is_done(work, RECIPE)
        assert manifest.has_made(work, work.output)


def test_lines_without_files_beside_the_output_are_read(out, work):
    with Manifest(out / OWN_FOLDER) as theirs:
        theirs.add(entry_of(work))
    (path,) = (out / OWN_FOLDER).glob("*.jsonl")
    told = json.loads(path.read_text())
    del told["companions"]
    path.write_text(json.dumps(told) + "\n")
    with Manifest(out / OWN_FOLDER) as manifest:
        manifest.refresh()
        assert manifest.is_done(work, RECIPE)
        assert not manifest.has_made(work, out / "in.gpx")


def test_lines_that_are_cut_or_foreign_tell_nothing_and_harm_nothing(out, work):
    line = json.dumps({"output": "x"}).encode() + b"\nnot json\n"
    (out / OWN_FOLDER / "a.jsonl").write_bytes(line + b'{"output": "in.mp4", "resu')
    with Manifest(out / OWN_FOLDER) as manifest:
        manifest.refresh()
        assert not manifest.is_done(work, RECIPE)
        manifest.add(entry_of(work))
        manifest.refresh()
        assert manifest.is_done(work, RECIPE)


def test_what_others_add_is_read_on(out, work):
    with Manifest(out / OWN_FOLDER) as ours, Manifest(out / OWN_FOLDER) as theirs:
        ours.refresh()
        for _ in range(3):
            theirs.add(entry_of(work, {"strength": 0.1}))
        ours.refresh()
        theirs.add(entry_of(work))
        assert not ours.is_done(work, RECIPE)
        ours.refresh()
        assert ours.is_done(work, RECIPE)


def test_a_line_is_whole_when_somebody_else_completes_it(out, work):
    with Manifest(out / OWN_FOLDER) as theirs:
        theirs.add(entry_of(work))
    (path,) = (out / OWN_FOLDER).glob("*.jsonl")
    line = path.read_bytes()
    path.write_bytes(line[:40])
    with Manifest(out / OWN_FOLDER) as ours:
        ours.refresh()
        assert not ours.is_done(work, RECIPE)
        path.write_bytes(line)
        ours.refresh()
        assert ours.is_done(work, RECIPE)


def test_a_line_that_a_full_disk_cuts_off_costs_no_other(out, work, monkeypatch):
    with Manifest(out / OWN_FOLDER) as manifest:
        plain = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, line: plain(descriptor, line[:50]))
        with pytest.raises(OSError, match="No space left"):
            manifest.add(entry_of(work))
        monkeypatch.undo()
        manifest.add(entry_of(work))
        manifest.refresh()
        assert manifest.is_done(work, RECIPE)


def test_a_source_that_changes_or_goes_is_told(tmp_path):
    path = tmp_path / "in.mp4"
    path.write_bytes(b"1")
    before = [identify(path)]
    assert check_unchanged([path], before) == ""
    path.write_bytes(b"2")
    assert "was changed while it was read" in check_unchanged([path], before)
    path.unlink()
    assert "as when a card is pulled out" in check_unchanged([path], before)


def test_the_recipe_holds_what_changes_the_output_and_nothing_else(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    usual = recipe_of(RestoreConfig(), weights)
    assert recipe_of(RestoreConfig(device="cpu", engine="torch", overwrite=True), weights) == usual
    assert recipe_of(RestoreConfig(keep=((1, 2, 3, 4),)), weights) != usual
    assert recipe_of(RestoreConfig(crf=20), weights) != usual
    assert json.loads(json.dumps(usual)) == usual
    weights.write_bytes(b"2")
    assert recipe_of(RestoreConfig(), weights) != usual


def test_one_process_at_a_time_makes_an_output(out, work):
    with Claim(out, work) as claim:
        code = (
            "import sys; from pathlib import Path; from mhnet_video.batch.claim import Claim\n"
            "from mhnet_video.batch.work import Work\n"
            "out = Path(sys.argv[1])\n"
            "Claim(out, Work(sources=(), output=out / 'in.mp4', key='in.mp4'))\n"
        )
        done = processes.run([sys.executable, "-c", code, out])
        assert "BlockingIOError" in done.stderr
        claim.staged.write_bytes(b"whole")
        claim.commit()
    assert work.output.read_bytes() == b"whole"
    assert list((out / OWN_FOLDER / "work").iterdir()) == []
    with Claim(out, work):
        pass


def test_an_output_whose_lock_cannot_be_removed_can_be_made_again(out, work, monkeypatch):
    """Windows removes no file that is open."""
    unlink = os.unlink

    def refuse(path, **how):
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        unlink(path, **how)

    monkeypatch.setattr(os, "unlink", refuse)
    for content in (b"one", b"two"):
        with Claim(out, work) as claim:
            claim.staged.write_bytes(content)
            claim.commit()
        assert work.output.read_bytes() == content


def test_an_output_whose_folder_was_tidied_away_is_not_lost(out, work):
    work = replace(work, output=out / "sub" / "in.mp4")
    with Claim(out, work) as claim:
        claim.staged.write_bytes(b"whole")
        claim.commit()
    assert work.output.read_bytes() == b"whole"


def test_what_is_not_whole_leaves_nothing(out, work):
    before = work.output.read_bytes()
    with Claim(out, work) as claim:
        claim.staged.write_bytes(b"half")
    assert work.output.read_bytes() == before
    assert list((out / OWN_FOLDER / "work").iterdir()) == []


def test_what_a_killed_process_has_left_goes_and_segments_stay(out, work):
    code = (
        "import os, sys; from pathlib import Path; from mhnet_video.batch.claim import Claim\n"
        "from mhnet_video.batch.work import Work\n"
        "out = Path(sys.argv[1])\n"
        "claim = Claim(out, Work(sources=(), output=out / 'in.mp4', key='in.mp4'))\n"
        "claim.staged.with_name('in.partial.mp4').write_bytes(b'half')\n"
        "claim.staged.with_name('.in.mp4.parts').mkdir()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert processes.run([sys.executable, "-c", code, out]).returncode == -9
    with Claim(out, work) as claim:
        assert [path.name for path in claim.staged.parent.iterdir()] == [".in.mp4.parts"]
