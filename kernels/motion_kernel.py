"""The motion of windows between frames: sampling and squares on small planes.

The planes are a sixteenth of a frame and smaller, so that they stay in the caches. What counts is
how few kernels there are, because dozens of them follow one another. So a kernel does all that
follows from one pixel's own values: the error where a new motion leads, for example, but not the
means over a square of those errors.
"""

import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.motion_math import (
    bilinear,
    clipped,
    error_of,
    grid_of,
    pixels_of,
    plane_of,
    size_of,
    spread_of,
    square_mean,
    start_kernel,
)
from mhnet_video.kernels.triton_math import LEVELS, SIZES


@triton.jit
def _store_slopes(
    luma_ptr,
    gradients_ptr,
    slopes_ptr,
    neighbour,
    count,
    index,
    y,
    x,
    right,
    down,
    height,
    width,
    clip,
    mask,
):
    """Store the errors that a motion leaves at its own pixels, times the gradients."""
    picture = neighbour // count
    size = height * width
    fixed_ptr = luma_ptr + picture * (count + 1) * size
    fixed = tl.load(fixed_ptr + index, mask=mask, other=0.0)
    moving_ptr = fixed_ptr + (1 + neighbour % count) * size
    error = error_of(fixed, moving_ptr, y, x, right, down, height, width, mask)
    error = clipped(error, clip)
    gradients_ptr += picture * 2 * size + index
    slopes_ptr += neighbour * 2 * size + index
    tl.store(slopes_ptr, error * tl.load(gradients_ptr, mask=mask, other=0.0), mask=mask)
    slope = error * tl.load(gradients_ptr + size, mask=mask, other=0.0)
    tl.store(slopes_ptr + size, slope, mask=mask)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def begun_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    gradients_ptr,  # [N, 2, h, w]
    plane_ptr,  # [N, K, 2, 3]
    coarse_ptr,  # [N, K, 2, coarse h, coarse w]
    common_ptr,  # [N, K, 2, h, w]
    motion_ptr,  # [N, K, 2, h, w]
    slopes_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    coarse_height,
    coarse_width,
    scale,  # of the plane
    clip,
    COARSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The motions with which BLOCK pixels of one neighbour begin, and the errors of the second."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = pixels_of(tl.program_id(0), height, width, BLOCK)
    right, down = spread_of(plane_of(plane_ptr + neighbour * 6, scale), y, x, height, width)
    place = neighbour * 2 * size + index
    tl.store(common_ptr + place, right, mask=mask)
    tl.store(common_ptr + place + size, down, mask=mask)
    if COARSE:
        # as F.interpolate's bilinear has it; twice the size is twice the motion
        from_y = (y.to(tl.float32) + 0.5) * (coarse_height.to(tl.float32) / height) - 0.5
        from_x = (x.to(tl.float32) + 0.5) * (coarse_width.to(tl.float32) / width) - 0.5
        from_y = tl.maximum(from_y, 0.0)
        from_x = tl.maximum(from_x, 0.0)
        coarse_size = coarse_height * coarse_width
        coarse_ptr += neighbour * 2 * coarse_size
        right = 2 * bilinear(coarse_ptr, from_y, from_x, coarse_height, coarse_width, mask)
        coarse_ptr += coarse_size
        down = 2 * bilinear(coarse_ptr, from_y, from_x, coarse_height, coarse_width, mask)
    tl.store(motion_ptr + place, right, mask=mask)
    tl.store(motion_ptr + place + size, down, mask=mask)
    _store_slopes(
        luma_ptr,
        gradients_ptr,
        slopes_ptr,
        neighbour,
        count,
        index,
        y,
        x,
        right,
        down,
        height,
        width,
        clip,
        mask,
    )


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def improved_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    gradients_ptr,  # [N, 2, h, w]
    inverse_ptr,  # [N, 3, h, w]
    motion_ptr,  # [N, K, 2, h, w]
    slopes_ptr,  # [N, K, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    out_slopes_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    clip,
    stride,
    SLOPES: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The motion of BLOCK pixels of one neighbour after a step, and the errors that it leaves."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = pixels_of(tl.program_id(0), height, width, BLOCK)
    slopes_ptr += neighbour * 2 * size
    right = square_mean(slopes_ptr, y, x, height, width, mask, REACH)
    down = square_mean(slopes_ptr + size, y, x, height, width, mask, REACH)
    inverse_ptr += neighbour // count * 3 * size + index
    p = tl.load(inverse_ptr, mask=mask, other=0.0)
    q = tl.load(inverse_ptr + size, mask=mask, other=0.0)
    r = tl.load(inverse_ptr + 2 * size, mask=mask, other=0.0)
    step_x = clipped(p * right + q * down, stride)
    step_y = clipped(q * right + r * down, stride)
    place = neighbour * 2 * size + index
    right = tl.load(motion_ptr + place, mask=mask, other=0.0) - step_x
    down = tl.load(motion_ptr + place + size, mask=mask, other=0.0) - step_y
    tl.store(out_ptr + place, right, mask=mask)
    tl.store(out_ptr + place + size, down, mask=mask)
    if SLOPES:
        _store_slopes(
            luma_ptr,
            gradients_ptr,
            out_slopes_ptr,
            neighbour,
            count,
            index,
            y,
            x,
            right,
            down,
            height,
            width,
            clip,
            mask,
        )


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def smoothed_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    before_ptr,  # [N, K, 2, h, w]
    motion_ptr,  # [N, K, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    errors_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    clip,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The means of a motion over BLOCK squares, and the errors with another motion and with it."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = pixels_of(tl.program_id(0), height, width, BLOCK)
    motion_ptr += neighbour * 2 * size
    place = neighbour * 2 * size + index
    right = square_mean(motion_ptr, y, x, height, width, mask, REACH)
    down = square_mean(motion_ptr + size, y, x, height, width, mask, REACH)
    tl.store(out_ptr + place, right, mask=mask)
    tl.store(out_ptr + place + size, down, mask=mask)
    fixed_ptr = luma_ptr + neighbour // count * (count + 1) * size
    moving_ptr = fixed_ptr + (1 + neighbour % count) * size
    fixed = tl.load(fixed_ptr + index, mask=mask, other=0.0)
    error = error_of(fixed, moving_ptr, y, x, right, down, height, width, mask)
    tl.store(errors_ptr + place + size, tl.minimum(tl.abs(error), clip), mask=mask)
    right = tl.load(before_ptr + place, mask=mask, other=0.0)
    down = tl.load(before_ptr + place + size, mask=mask, other=0.0)
    error = error_of(fixed, moving_ptr, y, x, right, down, height, width, mask)
    tl.store(errors_ptr + place, tl.minimum(tl.abs(error), clip), mask=mask)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def chosen_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    before_ptr,  # [N, K, 2, h, w]
    after_ptr,  # [N, K, 2, h, w]
    errors_ptr,  # [N, K, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    out_errors_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    gain,
    slope,
    floor,
    clip,
    BEFORE: tl.constexpr,  # whether the first motion is not zero
    ERRORS: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The second motion of BLOCK pixels as far as it explains more, and its errors beside none."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = pixels_of(tl.program_id(0), height, width, BLOCK)
    errors_ptr += neighbour * 2 * size
    old = square_mean(errors_ptr, y, x, height, width, mask, REACH) + floor
    new = square_mean(errors_ptr + size, y, x, height, width, mask, REACH)
    share = (gain * old - new) / (slope * old)
    share = tl.minimum(tl.maximum(share, 0.0), 1.0)
    place = neighbour * 2 * size + index
    right = tl.load(after_ptr + place, mask=mask, other=0.0)
    down = tl.load(after_ptr + place + size, mask=mask, other=0.0)
    if BEFORE:
        before = tl.load(before_ptr + place, mask=mask, other=0.0)
        right = before + share * (right - before)
        before = tl.load(before_ptr + place + size, mask=mask, other=0.0)
        down = before + share * (down - before)
    else:
        right = share * right
        down = share * down
    tl.store(out_ptr + place, right, mask=mask)
    tl.store(out_ptr + place + size, down, mask=mask)
    if ERRORS:
        fixed_ptr = luma_ptr + neighbour // count * (count + 1) * size
        moving_ptr = fixed_ptr + (1 + neighbour % count) * size
        fixed = tl.load(fixed_ptr + index, mask=mask, other=0.0)
        error = tl.load(moving_ptr + index, mask=mask, other=0.0) - fixed
        tl.store(out_errors_ptr + place, tl.minimum(tl.abs(error), clip), mask=mask)
        error = error_of(fixed, moving_ptr, y, x, right, down, height, width, mask)
        tl.store(out_errors_ptr + place + size, tl.minimum(tl.abs(error), clip), mask=mask)


def launch_begun(
    luma: Tensor,
    gradients: Tensor,
    plane: Tensor,
    coarse: Tensor | None,
    scale: float,
    clip: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    common, motion, slopes = _motions(luma, 3)
    rows, columns = (0, 0) if coarse is None else coarse.shape[3:]
    start_kernel(
        begun_kernel,
        grid_of(luma),
        {
            "luma_ptr": luma,
            "gradients_ptr": gradients,
            "plane_ptr": plane,
            "coarse_ptr": coarse,
            "common_ptr": common,
            "motion_ptr": motion,
            "slopes_ptr": slopes,
        },
        {
            **size_of(luma),
            "coarse_height": rows,
            "coarse_width": columns,
            "scale": scale,
            "clip": clip,
        },
        COARSE=coarse is not None,
    )
    return common, motion, slopes


def _motions(luma: Tensor, number: int) -> tuple[Tensor, ...]:
    """Room for motions, `[N, K, 2, h, w]` each."""
    batch, frames, height, width = luma.shape
    return tuple(luma.new_empty(batch, frames - 1, 2, height, width) for _ in range(number))


def launch_improved(
    luma: Tensor,
    gradients: Tensor,
    inverse: Tensor,
    motion: Tensor,
    slopes: Tensor,
    clip: float,
    reach: int,
    stride: float,
    continues: bool,
) -> tuple[Tensor, Tensor]:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out, out_slopes = (*_motions(luma, 2 if continues else 1), slopes)[:2]
    start_kernel(
        improved_kernel,
        grid_of(luma),
        {
            "luma_ptr": luma,
            "gradients_ptr": gradients,
            "inverse_ptr": inverse,
            "motion_ptr": motion,
            "slopes_ptr": slopes,
            "out_ptr": out,
            "out_slopes_ptr": out_slopes if continues else None,
        },
        {**size_of(luma), "clip": clip, "stride": stride},
        SLOPES=continues,
        REACH=reach,
    )
    return out, out_slopes


def launch_smoothed(
    luma: Tensor, before: Tensor, motion: Tensor, clip: float, reach: int
) -> tuple[Tensor, Tensor]:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out, errors = _motions(luma, 2)
    start_kernel(
        smoothed_kernel,
        grid_of(luma),
        {
            "luma_ptr": luma,
            "before_ptr": before,
            "motion_ptr": motion,
            "out_ptr": out,
            "errors_ptr": errors,
        },
        {**size_of(luma), "clip": clip},
        REACH=reach,
    )
    return out, errors


def launch_chosen(
    luma: Tensor,
    before: Tensor | None,
    after: Tensor,
    errors: Tensor,
    reach: int,
    gain: float,
    slope: float,
    floor: float,
    clip: float | None,
) -> tuple[Tensor, Tensor]:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out, out_errors = (*_motions(luma, 1 if clip is None else 2), errors)[:2]
    start_kernel(
        chosen_kernel,
        grid_of(luma),
        {
            "luma_ptr": luma,
            "before_ptr": before,
            "after_ptr": after,
            "errors_ptr": errors,
            "out_ptr": out,
            "out_errors_ptr": None if clip is None else out_errors,
        },
        {**size_of(luma), "gain": gain, "slope": slope, "floor": floor, "clip": clip or 0.0},
        BEFORE=before is not None,
        ERRORS=clip is not None,
        REACH=reach,
    )
    return out, out_errors
