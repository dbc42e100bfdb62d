"""Positions that can be read become a GPX track, whatever else is in the file."""

import random
import struct
import sys
from datetime import UTC, datetime

import gpxpy
import pytest
from clips import Clip, Subtitles, Video, as_telemetry, boxes, every
from processes import run
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError
from mhnet_video.media.location.gopro import gopro_positions
from mhnet_video.media.location.gpx import read_positions, save_gpx
from mhnet_video.media.location.positions import nmea_positions, novatek_position
from mhnet_video.pipelines.restore import restore_video

SHORT = Clip(video=(Video(times=every(40, 3)),))
NOON = datetime(2026, 4, 6, 12, 0, 30, tzinfo=UTC)


def novatek(at=48, *, order="<", fix=b"ANE\0", north=5007.4, east=3039.3, year=26, knots=10.0):
    """A block, its hour so many bytes from its beginning."""
    numbers = struct.pack(f"{order}6I", 12, 0, 30, year, 4, 6)
    floats = struct.pack(f"{order}4f", north, east, knots, 90.0)
    block = b"freeGPS " + bytes(at - 12) + numbers + fix + floats
    return struct.pack(">I", 256) + block + bytes(256 - 4 - len(block))


@pytest.mark.parametrize("at", [16, 20, 48])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("year", [26, 2026])
def test_a_block_of_novatek_is_read_wherever_its_time_begins(at, order, year):
    position = novatek_position(novatek(at, order=order, year=year))
    assert position.time == NOON
    assert position.latitude == pytest.approx(50 + 7.4 / 60, abs=1e-5)
    assert position.longitude == pytest.approx(30 + 39.3 / 60, abs=1e-5)
    assert position.speed == pytest.approx(10 * 0.514444, abs=1e-3)
    assert position.course == 90


def test_the_south_and_the_west_are_negative():
    position = novatek_position(novatek(fix=b"ASW\0"))
    assert position.latitude < -50
    assert position.longitude < -30


@pytest.mark.parametrize(
    "block",
    [
        novatek(fix=b"V00\0"),
        novatek(fix=b"VNE\0"),
        novatek(north=0.0, east=0.0),
        novatek(north=9500.0),
        novatek(north=5060.0),
        novatek(north=float("nan")),
        novatek(east=float("inf")),
        novatek(year=1970),
        novatek()[:60],
        novatek()[:80],
        b"freeGPS ",
    ],
)
def test_a_block_without_a_position_gives_none(block):
    assert novatek_position(block) is None


SENTENCES = (
    b"[1633961700000]$GNRMC,181500.00,A,5030.0000,N,03015.0000,W,36.0,90.5,111021,,,A*5C\n\n"
    b"[1633961700500]$GNGGA,181500.00,5030.0000,N,03015.0000,W,1,12,0.5,123.4,M,46.0,M,,*4C\n"
    b"[1633961701000]$GNRMC,181501.00,V,,,,,,,111021,,,N*52\n"
    b"[1633961702000]$GPRMC,181502,A,5030.0000,S,03015.0000,E,,,111021,,,A\n"
    b"[1633961703000]$GNRMC,181503.00,A,5030.00"
)


def test_sentences_are_read_with_their_elevation():
    first, second = nmea_positions(SENTENCES)
    assert first[:3] == (datetime(2021, 10, 11, 18, 15, tzinfo=UTC), 50.5, -30.25)
    assert first[3:] == (pytest.approx(36 * 1852 / 3600), 90.5, 123.4)
    assert second[1:] == (-50.5, 30.25, None, None, None)


def item(key: bytes, kind: bytes, size: int, data: bytes) -> bytes:
    return struct.pack(">4scBH", key, kind, size, len(data) // size) + data + bytes(-len(data) % 4)


def nest(key: bytes, *items: bytes) -> bytes:
    data = b"".join(items)
    return struct.pack(">4sBBH", key, 0, 1, len(data)) + data


def gps5(fix: int = 3, scales: tuple[int, ...] = (10**7, 10**7, 1000, 1000, 100)) -> bytes:
    samples = [(505000000 + n, -302500000, 123400, 10000 + n, 1000) for n in range(4)]
    return nest(
        b"DEVC",
        item(b"DVNM", b"c", 1, b"Camera"),
        nest(b"STRM", item(b"ACCL", b"s", 6, bytes(12))),
        nest(
            b"STRM",
            item(b"GPSF", b"L", 4, struct.pack(">I", fix)),
            item(b"GPSU", b"c", 1, b"260406120030.000"),
            item(b"SCAL", b"l", 4, struct.pack(f">{len(scales)}i", *scales)),
            item(b"GPS5", b"l", 20, b"".join(struct.pack(">5i", *each) for each in samples)),
        ),
    )


def gps9(fix: int = 3) -> bytes:
    # days from 2000 on, and thousandths of seconds from midnight
    sample = struct.pack(
        ">7i2H", 505000000, -302500000, 123400, 10000, 0, 9592, 43230000, 99, fix
    )  # fmt: skip
    scales = (10**7, 10**7, 1000, 1000, 100, 1, 1000, 100, 1)
    return nest(
        b"DEVC",
        nest(
            b"STRM",
            item(b"SCAL", b"l", 4, struct.pack(">9i", *scales)),
            item(b"GPS9", b"?", 32, sample),
        ),
    )


def test_gopros_samples_are_spread_over_their_packet():
    positions = [*gopro_positions(gps5(), 1.0)]
    assert [(each.time - NOON).total_seconds() for each in positions] == [0, 0.25, 0.5, 0.75]
    assert positions[0][1:] == (50.5, -30.25, 10.0, None, 123.4)


def test_gopros_later_samples_have_times_of_their_own():
    (position,) = gopro_positions(gps9(), 1.0)
    assert position == (NOON, 50.5, -30.25, 10.0, None, 123.4)


@pytest.mark.parametrize(
    "packet", [gps5(fix=0), gps9(fix=0), gps5(scales=(0,)), gps5(scales=(1, 1)), gps5()[:-30]]
)
def test_gopro_without_a_fix_or_whole_samples_gives_none(packet):
    assert not [*gopro_positions(packet, 1.0)]


def test_bytes_by_chance_end_nothing():
    chance = random.Random(3)
    for data in (novatek(), SENTENCES, gps5(), gps9()):
        for _ in range(500):
            damaged = bytearray(data[: chance.randrange(len(data) + 1)])
            for _ in range(chance.randrange(9)):
                if damaged:
                    damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            for position in (
                novatek_position(bytes(damaged)),
                *nmea_positions(bytes(damaged)),
                *gopro_positions(bytes(damaged), 1.0),
            ):
                assert position is None or abs(position.latitude) <= 90


def box(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(contents), kind) + contents


def with_positions(folder, added, name="clip.mp4"):
    source = Clip(name=name, video=SHORT.video).make(folder)
    source.write_bytes(source.read_bytes() + added)
    return source


COLD = b"".join(
    box(b"free", novatek(fix=fix, north=5000 + n)[4:])
    for n, fix in enumerate((b"V00\0", b"V00\0", b"ANE\0", b"ANE\0"))
)


def test_the_track_begins_with_the_first_fix(tmp_path):
    source = with_positions(tmp_path, COLD)
    config = RestoreConfig(gpx=True)
    report = restore_video(source, tmp_path / "out.mkv", config, restorer=StandIn())
    assert report.files == {"positions": str(tmp_path / "out.gpx")}
    gpx = gpxpy.parse((tmp_path / "out.gpx").read_text())
    points = gpx.tracks[0].segments[0].points
    assert [round(point.latitude * 60) % 60 for point in points] == [2, 3]
    assert points[0].time == NOON
    assert points[0].speed == pytest.approx(10 * 0.514444, abs=1e-3)


def test_what_was_carried_is_read_as_before(tmp_path):
    source = with_positions(tmp_path, box(b"free", box(b"gps ", SENTENCES)))
    restore_video(source, tmp_path / "out.mp4", restorer=StandIn())
    assert read_positions(tmp_path / "out.mp4") == read_positions(source)
    assert len(read_positions(source)) == 2


def test_a_telemetry_track_is_read(tmp_path):
    text = "x" * len(gps5())
    subtitles = Subtitles(codec="mov_text", cues=((0.0, 0.1, text),))
    source = Clip(video=SHORT.video, subtitles=(subtitles,), finish=as_telemetry).make(tmp_path)
    data = source.read_bytes()
    place = data.index(text.encode()) - 2
    # the sample has the size of its text before it
    source.write_bytes(data[:place] + gps5() + data[place + len(text) :])
    assert [each.latitude for each in read_positions(source)] == pytest.approx([50.5] * 4)


def test_sentences_among_subtitles_are_read(tmp_path):
    text = "gsensori,4;GPRMC,120000.00,A,5000.0,N,3000.0,E,25.0,45.0,150126,,,A*5C;CAR,0"
    subtitles = Subtitles(codec="mov_text", cues=((0.0, 0.1, text), (0.1, 0.1, text)))
    source = Clip(video=SHORT.video, subtitles=(subtitles,)).make(tmp_path)
    assert [each[1:3] for each in read_positions(source)] == [(50, 30)] * 2


def test_a_time_as_a_name_is_no_address(tmp_path, monkeypatch):
    source = with_positions(tmp_path, COLD)
    source.rename(tmp_path / "12:30:45.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_positions("12:30:45.mp4") == read_positions(tmp_path / "12:30:45.mp4") != []


def test_without_positions_there_is_no_track_and_that_is_said(tmp_path):
    source = with_positions(tmp_path, COLD[: len(COLD) // 2])
    config = RestoreConfig(gpx=True)
    report = restore_video(source, tmp_path / "out.mp4", config, restorer=StandIn())
    assert report.files == {}
    assert "a track of positions: none can be read" in report.lost
    assert not (tmp_path / "out.gpx").exists()


def test_nothing_unasked_appears(tmp_path):
    restore_video(with_positions(tmp_path, COLD), tmp_path / "out.mp4", restorer=StandIn())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_an_existing_track_is_not_replaced_and_no_work_is_done(tmp_path):
    source = with_positions(tmp_path, COLD)
    (tmp_path / "out.gpx").write_text("mine")
    with pytest.raises(WriteError, match=r"out\.gpx exists already"):
        restore_video(source, tmp_path / "out.mp4", RestoreConfig(gpx=True), restorer=StandIn())
    assert not (tmp_path / "out.mp4").exists()
    save_gpx([source], tmp_path / "out.gpx", overwrite=True)
    assert "trkpt" in (tmp_path / "out.gpx").read_text()


@pytest.mark.parametrize("places", [("-", "out.mp4"), ("clip.mp4", "-")])
def test_a_pipe_has_no_track_beside_it(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_positions(tmp_path, COLD)
    with pytest.raises(ConfigError, match="leave gpx out"):
        restore_video(*places, RestoreConfig(gpx=True), restorer=StandIn())


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gpxpy", None)
    with pytest.raises(MHNetVideoError, match=r"pip install 'mhnet-video\[gpx\]'"):
        save_gpx([with_positions(tmp_path, COLD)], tmp_path / "out.gpx")


@pytest.mark.slow
def test_the_closing_lines_name_the_track(tmp_path):
    source = with_positions(tmp_path, COLD)
    output = tmp_path / "out.mp4"
    done = run([sys.executable, "-m", "mhnet_video", str(source), str(output), "--gpx"])
    assert f"  positions: {tmp_path / 'out.gpx'}" in done.stdout.splitlines()
    assert boxes(output.read_bytes())[-1][0] == b"free"


def sentence(clock: str) -> bytes:
    return b"$GPRMC,%s,A,5000.0,N,3000.0,E,25.0,45.0,150126,,,A\r\n" % clock.encode()


def test_files_are_one_track_in_which_gaps_end_segments(tmp_path):
    seconds = [["120000", "120001"], ["120003", "120008"], ["120100", "120059"]]
    sources = [
        with_positions(
            tmp_path, box(b"free", box(b"gps ", b"".join(map(sentence, each)))), name=f"{n}.mp4"
        )
        for n, each in enumerate(seconds)
    ]
    assert save_gpx(sources, tmp_path / "out.gpx") == 6
    (track,) = gpxpy.parse((tmp_path / "out.gpx").read_text()).tracks
    found = [[point.time.strftime("%H%M%S") for point in each.points] for each in track.segments]
    # the clock was set back at last
    assert found == [["120000", "120001", "120003", "120008"], ["120100"], ["120059"]]
