"""Which files become one trip: by the names that cameras give, and by their containers' times."""

from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from mhnet_video.batch.clip_names import read_name
from mhnet_video.batch.discovery import FoundFile
from mhnet_video.batch.footage import VideoFacts
from mhnet_video.batch.trips import Clip, group_trips

MINUTE = timedelta(seconds=60)
NOON = datetime(2023, 6, 15, 12, 0, 0)


def clip(name, *, seconds=60.0, created=None, kind=("h264", "1920x1080"), root="/card"):
    relative, root = PurePosixPath(name), Path(root)
    return Clip(
        found=FoundFile(path=root / relative, relative=relative, root=root, is_named=False),
        footage=VideoFacts(seconds=seconds, created=created, kind=kind),
    )


def trips(*clips):
    return [[item.found.relative.as_posix() for item in trip] for trip in group_trips(clips)]


def stamped(form, count, start=NOON, step=MINUTE):
    return [(start + index * step).strftime(form) for index in range(count)]


@pytest.mark.parametrize(
    ("name", "time", "view"),
    [
        ("DCIM/Movie/2023_0615_123456_0001F.MP4", "2023-06-15 12:34:56", "front"),
        ("DCIM/Movie/RO/20230615123456_000012R.MP4", "2023-06-15 12:34:56", "rear"),
        ("DCIM/Movie/Parking/2023_0615_123456_0001PF.MP4", "2023-06-15 12:34:56", "front"),
        ("20230615123456_000012.MP4", "2023-06-15 12:34:56", ""),
        ("Normal/Front/NO20230615-123456-000123F.MP4", "2023-06-15 12:34:56", "front"),
        ("Event/Back/EV20230615-123456-000124B.MP4", "2023-06-15 12:34:56", "rear"),
        ("Normal/Back/NO20230615-123456-000123.MP4", "2023-06-15 12:34:56", "rear"),
        ("BlackVue/Record/20230615_123456_NF.mp4", "2023-06-15 12:34:56", "front"),
        ("BlackVue/Record/20230615_123456_ER.mp4", "2023-06-15 12:34:56", "rear"),
        ("BlackVue/Record/20230615_123456_PIL.mp4", "2023-06-15 12:34:56", "inside"),
        ("cont_rec/REC_2023_06_15_12_34_56_F.MP4", "2023-06-15 12:34:56", "front"),
        ("evt_rec/EVT_2023_06_15_12_34_56_R.MP4", "2023-06-15 12:34:56", "rear"),
        ("SavedClips/x/2023-06-15_12-34-56-left_repeater.mp4", "2023-06-15 12:34:56", "left"),
        ("SavedClips/x/2023-06-15_12-34-56-back.mp4", "2023-06-15 12:34:56", "rear"),
        ("cont_rec/REC_2023_06_15_12_34_56_f.mp4", "2023-06-15 12:34:56", "front"),
        ("230615_123456_001_FH.MP4", "2023-06-15 12:34:56", "front"),
        ("230615_123456_001_RL.MP4", "2023-06-15 12:34:56", "rear"),
        ("20230615_123456_0001_N_A.MP4", "2023-06-15 12:34:56", "front"),
        ("20230615_123456_0001_E_B.MP4", "2023-06-15 12:34:56", "inside"),
        ("20230615_123456_0001_N_C.MP4", "2023-06-15 12:34:56", "rear"),
        ("20230615123456R.MP4", "2023-06-15 12:34:56", "rear"),
        ("239915_123456_001_FH.MP4", None, ""),
        ("PXL_20230615_123456789.mp4", "2023-06-15 12:34:56", ""),
        ("2023-06-15 12.34.56 PART.mp4", "2023-06-15 12:34:56", ""),
        ("video_rear/clip7.mp4", None, "rear"),
        ("20239915_993456_NF.mp4", None, ""),
        ("105UNSVD/GRMN0012.MP4", None, ""),
    ],
)
def test_names_of_cameras_tell_time_and_view(name, time, view):
    told = read_name(PurePosixPath(name))
    assert told.time == (None if time is None else datetime.fromisoformat(time))
    assert told.view == view


@pytest.mark.parametrize(
    ("name", "chapter"),
    [
        ("GX010123.MP4", ("0123", 1)),
        ("GH020123.MP4", ("0123", 2)),
        ("GOPR0123.MP4", ("0123", 1)),
        ("GP010123.MP4", ("0123", 2)),
        ("GX01012.MP4", None),
    ],
)
def test_names_of_gopro_tell_the_chapter(name, chapter):
    assert read_name(PurePosixPath(name)).chapter == chapter


@pytest.mark.parametrize(
    "form",
    [
        "%Y_%m%d_%H%M%S_0001F.MP4",
        "NO%Y%m%d-%H%M%S-000123F.MP4",
        "%Y%m%d_%H%M%S_NF.mp4",
        "REC_%Y_%m_%d_%H_%M_%S_F.MP4",
        "%y%m%d_%H%M%S_001_FH.MP4",
        "%Y%m%d_%H%M%S_0001_N_A.MP4",
        "%Y-%m-%d_%H-%M-%S-front.mp4",
        "yard %Y-%m-%d %H.%M.%S.mkv",
    ],
)
def test_files_that_follow_one_another_are_one_trip_and_a_pause_begins_another(form):
    first = stamped(form, 3)
    second = stamped(form, 2, NOON + 3 * MINUTE + timedelta(seconds=3))
    assert trips(*map(clip, reversed(first + second))) == [first, second]


def test_a_gap_of_two_seconds_is_none():
    names = stamped("%Y%m%d_%H%M%S_NF.mp4", 3, step=MINUTE + timedelta(seconds=2))
    assert trips(*map(clip, names)) == [names]


def test_front_rear_and_inside_are_apart():
    form = "%Y%m%d_%H%M%S_N{}.mp4"
    views = [stamped(form.format(letter), 3) for letter in "FIR"]
    assert sorted(trips(*(clip(name) for view in views for name in view))) == views


@pytest.mark.parametrize(
    "form",
    [
        "%y%m%d_%H%M%S_001_{}H.MP4",
        "%Y%m%d_%H%M%S_cam{}.mp4",
        "cam{} %Y-%m-%d %H.%M.%S.mkv",
    ],
)
@pytest.mark.parametrize("views", ["FR", "AC"])
def test_minutes_that_one_camera_lacks_are_not_taken_of_another(form, views):
    one, two = (stamped(form.format(letter), 3) for letter in views)
    assert trips(*map(clip, [one[0], one[2], *two])) == [[one[0]], two, [one[2]]]


def test_cameras_of_two_makers_are_apart_though_both_look_ahead():
    viofo = stamped("Movie/%Y_%m%d_%H%M%S_0001F.MP4", 3)
    locked = viofo[1] = viofo[1].replace("Movie/", "Movie/RO/")
    # it ends when the locked file of the other one begins
    blackvue = stamped("BlackVue/%Y%m%d_%H%M%S_NF.mp4", 1, NOON - timedelta(seconds=1))
    assert trips(*map(clip, viofo + blackvue)) == [blackvue, viofo]
    assert locked in viofo


def test_cards_of_two_cameras_of_one_kind_are_apart():
    """Each has the minutes that the other one lacks."""
    names = stamped("%Y_%m%d_%H%M%S_0001F.MP4", 4)
    other = [clip(name, root="/other") for name in names[1::2]]
    assert trips(*map(clip, names[::2]), *other) == [[name] for name in names]


def test_channels_that_numbers_tell_are_apart():
    one, two = (stamped(f"ch{number} %Y%m%d%H%M%S.mp4", 3) for number in (1, 2))
    assert trips(*map(clip, [one[0], one[2], *two])) == [[one[0]], two, [one[2]]]


def test_cameras_whose_names_have_no_time_are_apart():
    start = datetime(2023, 6, 15, tzinfo=UTC)
    names = ["yard 0001.mp4", "gate 0002.mp4", "yard 0003.mp4"]
    clips = [clip(name, created=start + i * MINUTE) for i, name in enumerate(names)]
    assert trips(*clips) == [[name] for name in names]


@pytest.mark.parametrize(
    ("form", "occasions"),
    [
        ("{}%Y%m%d-%H%M%S-000123.MP4", ("NO", "EV")),
        ("%Y_%m%d_%H%M%S_0001{}.MP4", ("", "P")),
        ("%Y%m%d_%H%M%S_{}.mp4", ("N", "E")),
        ("%Y%m%d_%H%M%S_001_{}.mp4", ("N", "EMR")),
        ("{}_%Y%m%d_%H%M%S.mp4", ("Normal", "Event")),
        ("{}%Y%m%d_%H%M%S.mp4", ("", "LOCK_")),
    ],
)
def test_why_a_camera_without_a_view_recorded_does_not_matter(form, occasions):
    names = [name.format(each) for name, each in zip(stamped(form, 2), occasions, strict=True)]
    assert trips(*map(clip, names)) == [names]


@pytest.mark.parametrize("seconds", [2.5, 0.0], ids=["short", "of no known length"])
def test_short_clips_of_the_same_time_are_no_parts_of_one_trip(seconds):
    names = ["Normal/NO20230615-123456-000123F.MP4", "Event/EV20230615-123456-000123F.MP4"]
    assert trips(*(clip(name, seconds=seconds) for name in names)) == [[names[1]], [names[0]]]
    start = datetime(2023, 6, 15, tzinfo=UTC)
    names = ["GRMN0001.MP4", "GRMN0002.MP4"]
    clips = [clip(name, seconds=seconds, created=start) for name in names]
    assert trips(*clips) == [[name] for name in names]


def test_locked_files_of_other_folders_stand_in_their_place():
    names = stamped("Movie/%Y_%m%d_%H%M%S_0001F.MP4", 4)
    names[1] = names[1].replace("Movie/", "Movie/RO/")
    names[2] = names[2].replace("Movie/", "Event/")
    assert trips(*map(clip, names)) == [names]


def test_copies_of_a_minute_in_several_folders_are_trips_of_their_own():
    recent = stamped("RecentClips/%Y-%m-%d_%H-%M-%S-front.mp4", 3)
    saved = stamped("SavedClips/a/%Y-%m-%d_%H-%M-%S-front.mp4", 3)
    assert trips(*map(clip, recent + saved)) == [recent, saved]
    # where one folder has no more, the other one's minutes do not go on in it
    assert trips(*map(clip, recent[:1] + saved)) == [recent[:1], saved]


def test_a_copy_that_comes_first_by_its_name_takes_no_place_in_another_folder():
    first, copy, second = (
        "CAM2/20230615_120000.mp4",
        "CAM1/20230615_120100.mp4",
        "CAM2/20230615_120100.mp4",
    )
    assert trips(clip(copy), clip(first), clip(second)) == [[first, second], [copy]]


def test_numbers_tell_which_drive_goes_on_where_the_clock_was_not_set():
    names = [f"2019_0101_{time}_{number:04d}F.MP4" for time, number in UNSET]
    assert trips(*map(clip, names)) == [names[:1], names[1:]]


UNSET = [("000001", 1), ("000001", 2), ("000101", 3)]


def test_chapters_follow_by_their_numbers_whatever_their_times():
    names = ["GX010007.MP4", "GX020007.MP4", "GX030007.MP4", "GX010008.MP4"]
    created = datetime(2023, 6, 15, tzinfo=UTC)
    clips = [clip(name, created=created, seconds=500) for name in reversed(names)]
    assert trips(*clips) == [names[:3], names[3:]]


def test_chapters_of_another_folder_are_of_another_recording():
    names = ["100GOPRO/GX010007.MP4", "101GOPRO/GX020007.MP4"]
    assert trips(*map(clip, names)) == [[name] for name in names]


def test_a_copy_in_another_format_does_not_go_on_in_the_recordings():
    first, second, third = stamped("%Y%m%d_%H%M%S_NF.mp4", 3)
    copy = second.replace(".mp4", ".mkv")
    assert trips(*map(clip, [first, copy, third])) == [[first], [copy], [third]]
    second = second.replace(".mp4", ".MP4")
    assert trips(*map(clip, [first, second, third])) == [[first, second, third]]


def test_a_missing_chapter_is_not_bridged():
    assert trips(clip("GX010007.MP4"), clip("GX030007.MP4")) == [["GX010007.MP4"], ["GX030007.MP4"]]


def test_times_of_containers_join_what_names_do_not_date():
    names = [f"100EVENT/GRMN{number:04}.MP4" for number in range(4)]
    start = datetime(2023, 6, 15, tzinfo=UTC)
    begun = [clip(name, created=start + i * MINUTE) for i, name in enumerate(names)]
    assert trips(*begun) == [names]
    late = [clip(name, created=start + i * 2 * MINUTE) for i, name in enumerate(names)]
    assert trips(*late) == [[name] for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["GRMN0012.MP4", "EVNT0013.MP4", "GRMN0014.MP4"],
        ["20230615_0012.mp4", "20230616_0013.mp4"],
        ["2023-06-15-12-59.mp4", "2023-06-15-13-00.mp4"],
        ["1686832496_0001.mp4", "1686832556_0002.mp4"],
    ],
)
def test_dates_and_occasions_in_names_without_a_time_do_not_matter(names):
    start = datetime(2023, 6, 15, tzinfo=UTC)
    assert trips(*(clip(n, created=start + i * MINUTE) for i, n in enumerate(names))) == [names]


def test_letters_behind_the_number_are_those_of_a_camera():
    start = datetime(2023, 6, 15, tzinfo=UTC)
    names = ["clip0001A.mp4", "clip0002B.mp4", "clip0003A.mp4"]
    clips = [clip(name, created=start + i * MINUTE) for i, name in enumerate(names)]
    assert trips(*clips) == [[name] for name in names]


def test_times_of_containers_may_be_those_of_the_end():
    names = [f"GRMN{number:04}.MP4" for number in range(3)]
    lengths = [60.0, 60.0, 23.0]
    end = datetime(2023, 6, 15, tzinfo=UTC)
    clips = []
    for name, seconds in zip(names, lengths, strict=True):
        end += timedelta(seconds=seconds)
        clips.append(clip(name, seconds=seconds, created=end))
    assert trips(*clips) == [names]


def test_another_size_begins_another_trip():
    names = stamped("%Y%m%d_%H%M%S_NF.mp4", 2)
    small = clip(names[1], kind=("h264", "1280x720"))
    assert trips(clip(names[0]), small) == [[names[0]], [names[1]]]


def test_files_without_any_time_stay_alone():
    assert trips(clip("a1.mp4"), clip("a2.mp4")) == [["a1.mp4"], ["a2.mp4"]]
