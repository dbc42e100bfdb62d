"""Neighbours are moved to where the middle frame shows the same, and only where something moved."""

import pytest
import torch
import torch.nn.functional as F

from mhnet_video.kernels import map_reference
from mhnet_video.model.align import align, align_frames, align_maps, estimate, move, shrunken_luma
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.window import stacked, window_of

H, W = 240, 400


def scene(seed=0, size=(H + 160, W + 160)):
    """Something with detail of all sizes, `[3, h, w]`."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(3, *size)
    for cell in (6, 20, 60, 180):
        noise = torch.rand(1, 3, *(side // cell + 2 for side in size), generator=generator)
        total += F.interpolate(noise, size, mode="bicubic")[0]
    return (total / 4).clamp(0, 1)


def seen(picture, x, y):
    """What a camera that looks at a place of a scene sees."""
    return picture[:, 80 + y : 80 + y + H, 80 + x : 80 + x + W]


def rained_on(picture, seed):
    """The picture behind streaks of its own."""
    generator = torch.Generator().manual_seed(seed)
    streaks = (torch.rand(picture.shape[1:], generator=generator) < 0.004).float()
    streaks = F.conv2d(streaks[None, None], torch.ones(1, 1, 15, 1), padding=(7, 0))[0, 0]
    return (picture + 0.3 * streaks.clamp(0, 1)).clamp(0, 1)


def inner(error, edge=50):
    return float(error[..., edge:-edge, edge:-edge].abs().mean())


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, -6), (17, 5), (-26, 2)])
def test_a_camera_that_moves(x, y):
    picture = scene()
    clean = [seen(picture, x * step, y * step) for step in (-1, 0, 1)]
    window = torch.stack([rained_on(each, index) for index, each in enumerate(clean)])[None]
    aligned = align(window)
    assert aligned.shape == window.shape
    assert torch.equal(aligned[0, 1], window[0, 1])
    for index in (0, 2):
        streaks = inner(window[0, index] - clean[index])
        before = inner(window[0, index] - clean[1])
        after = inner(aligned[0, index] - clean[1])
        # but for the streaks, whose places have moved, it is nearly the middle frame
        assert after - streaks < 0.4 * (before - streaks)


def test_rain_before_a_fixed_camera_is_no_motion():
    picture = seen(scene(), 0, 0)
    window = torch.stack([rained_on(picture, index) for index in range(5)])
    luma = shrunken_luma(window)
    motion = estimate(luma[None, 2], luma[None, [0, 1, 3, 4]])
    assert float((motion.abs() > 0.05).float().mean()) < 0.03
    assert float((align(window[None])[0] - window).abs().mean()) < 2e-3


def test_what_passes_by_does_not_move_the_rest():
    still, passing = seen(scene(), 0, 0), scene(1)
    window = torch.stack([still.clone() for _ in range(3)])
    for index, frame in enumerate(window):
        x = 100 + 12 * index
        frame[:, 60:180, x : x + 140] = passing[:, :120, :140]
    aligned = align(window[None])[0]
    piece = slice(90, 150), slice(152, 212)
    before = float((window[0][:, *piece] - window[1][:, *piece]).abs().mean())
    assert float((aligned[0][:, *piece] - window[1][:, *piece]).abs().mean()) < before / 3
    for index, beside in ((0, slice(0, 40)), (2, slice(340, 400))):
        change = aligned[index][:, :, beside] - window[index][:, :, beside]
        assert float(change.abs().mean()) < 0.02 * before


def test_what_is_burnt_in_stays():
    picture = scene()
    window = torch.stack([seen(picture, 9 * step, 0) for step in (-1, 0, 1)])
    window[:, :, 100:112, 100:220:4] = 1.0  # letters of a clock
    aligned = align(window[None])[0]
    for index in (0, 2):
        letters = aligned[index, :, 100:112, 100:220:4]
        assert float((letters - 1).abs().max()) < 0.01
        moved = (aligned[index] - window[1])[:, 30:90, 60:-60].abs().mean()
        assert float(moved) < 0.02


def test_frames_that_are_the_same_stay():
    picture = seen(scene(), 0, 0)
    found = align_frames([picture.clone(), picture])
    torch.testing.assert_close(found[0], picture, rtol=0, atol=1e-4)


def test_a_picture_on_its_own_has_black_neighbours():
    first, other = torch.rand(3, 8, 8), torch.rand(3, 8, 8)
    assert window_of([first] * 5) == [None, None, first, None, None]
    assert window_of([first, first, other]) == [first, first, other]
    assert window_of([first]) == [first]


def test_what_is_missing_stays_missing_and_is_black_to_the_network():
    frames = [seen(scene(), 6 * step, 0) for step in range(2)]
    found = align_frames([None, *frames])
    assert found[0] is None and found[1] is frames[0]
    window = stacked([None, *frames])
    assert float(window[0].abs().max()) == 0 and torch.equal(window[1:], torch.stack(frames))
    # of whole windows too: black stays black, wherever it is moved from
    torch.testing.assert_close(align(window[None])[0], stacked(found), rtol=0, atol=1e-4)
    assert align_frames([None, frames[0], None]) == [None, frames[0], None]
    with pytest.raises(ValueError, match="in the middle"):
        align_frames([frames[0], None, frames[1]])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3), (37, 66)])
def test_any_size(size):
    window = torch.rand(2, 3, 3, *size)
    aligned = align(window)
    assert aligned.shape == window.shape and bool(aligned.isfinite().all())
    assert torch.equal(align(window[:, 1:2]), window[:, 1:2])


def test_move():
    picture = torch.arange(20.0).view(1, 1, 4, 5)
    motion = torch.tensor([1.0, -1.0])[None, :, None, None].expand(1, 2, 4, 5)
    expected = torch.tensor([[1, 2, 3, 4, 4], [1, 2, 3, 4, 4], [6, 7, 8, 9, 9]]).float()
    torch.testing.assert_close(move(picture, motion)[0, 0, :3], expected, atol=1e-4, rtol=0)
    # half a pixel is the mean of two
    found = move(picture, torch.tensor([0.5, 0.0])[None, :, None, None])
    torch.testing.assert_close(found[0, 0, 0, :2], torch.tensor([0.5, 1.5]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("frames", "patch"), [(3, 2), (5, 1)])
def test_folded_frames(frames, patch):
    picture = scene()
    pictures = [seen(picture, 6 * step, -step) for step in range(frames)]
    window = torch.stack([torch.stack(pictures), torch.stack(pictures[::-1])])
    folded = F.pixel_unshuffle(window.flatten(1, 2), patch).permute(0, 2, 3, 1).contiguous()
    out = torch.full_like(folded, float("nan"))
    align_maps(folded, frames, patch, out)
    torch.testing.assert_close(map_reference.unfold(out, patch), align(window), rtol=0, atol=1e-3)


def test_a_network_aligns_where_it_was_trained_so():
    picture = scene()
    window = torch.cat([seen(picture, 9 * step, 0) for step in (-1, 0, 1)])[None]
    sizes = {"width": 4, "heads": 4, "encoder_blocks": (1,) * 4, "group_blocks": (1,) * 4}
    plain = MHNet(NetworkConfig(**sizes, frames=3))
    aligning = MHNet(NetworkConfig(**sizes, frames=3, align=True))
    aligning.load_state_dict(plain.state_dict())
    aligned = align(window.unflatten(1, (3, 3))).flatten(1, 2)
    with torch.inference_mode():
        assert torch.equal(aligning(window), plain(aligned))
        assert not torch.equal(aligning(window), plain(window))
        assert aligning.double()(window.double()).dtype == torch.float64
    window.requires_grad_()
    aligning.float()(window).sum().backward()
    assert bool(window.grad[:, :3].abs().sum() > 0)


def test_before_the_glass_all_of_a_neighbour_moves():
    """A blot that stands still is carried along, and shows what was behind it."""
    picture = scene(2, (160, 260))
    frames = [picture[:, 20:116, 40 + 9 * i : 168 + 9 * i].clone() for i in range(3)]
    for frame in frames:
        frame[:, 40:48, 60:68] = 0.5
    kept, moved = (
        align(torch.stack(frames)[None])[0],
        align_frames([frames[0], *frames, frames[0]], glass=True),
    )
    blot = (slice(None), slice(42, 46), slice(62, 66))
    truth = picture[:, 20:116, 49:177]
    assert moved[0] is frames[0] and moved[4] is frames[0] and moved[2] is frames[1]
    for index in (0, 2):
        assert float((kept[index][blot] - 0.5).abs().max()) < 1e-3
        assert float((moved[index + 1][blot] - truth[blot]).abs().mean()) < 0.05
    again = align(torch.stack(frames)[None], moves_all=True)[0]
    torch.testing.assert_close(again, torch.stack(moved[1:4]), rtol=0, atol=1e-4)
