"""What is printed: the lines of every report. Imports nothing heavy."""

import json
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhnet_video.config import TrainConfig
    from mhnet_video.live.source_address import CameraInfo
    from mhnet_video.live.statistics import LiveStatistics
    from mhnet_video.pipelines.evaluate import Evaluation
    from mhnet_video.pipelines.export import ExportReport
    from mhnet_video.pipelines.flicker import ClipFlicker
    from mhnet_video.pipelines.info import Info
    from mhnet_video.pipelines.live import LiveReport
    from mhnet_video.pipelines.restore import Report
    from mhnet_video.training.metrics import Scores


DROPS = "drops on the glass before the camera"
"""What is said where they are left."""


def restore_summary(report: "Report") -> list[str]:
    """What became of a file."""
    from mhnet_video.media.fidelity import counted

    name = "standard output" if report.destination == "-" else report.destination
    speed = f", {report.frames / report.seconds:.1f} a second" if report.seconds > 0 else ""
    device = f"{report.device}{_scales(report)}"
    lines = [
        f"{name}: {counted(report.frames, 'frame')} in {report.seconds:.1f} s{speed}",
        f"  model {report.model} on {device}, {report.encoder} {report.pixel_format}",
    ]
    if report.dry:
        lines.append(
            f"  unchanged, since there was nothing to take out: {counted(report.dry, 'frame')}"
        )
    if report.kept:
        lines.append("  kept: " + ", ".join(report.kept))
    if report.lost:
        lines.append("  not kept: " + "; ".join(report.lost))
    if report.damaged:
        what = counted(report.damaged, "packet or frame", "packets or frames")
        lines.append(f"  damaged: {what} could not be decoded")
    lines += [f"  {name}: {path}" for name, path in report.files.items()]
    if report.has_drops:
        lines.append(f"  left: {DROPS}; add --task raindrop")
    if report.parts:
        lines.append(f"  interrupted: it waits in {report.parts}; the same command goes on")
    elif report.interrupted:
        what = "folder" if os.path.isdir(report.destination) else "file"
        done = f"the {what} is complete up to the last frame above"
        lines.append(f"  interrupted: {done if report.frames else 'nothing was written'}")
    return lines


def _scales(report: "Report") -> str:
    """The working scales other than 1, and why: of which frames, where it is not one for all."""
    if len(report.scales) < 2:
        reason = f" ({report.scales[0].reason})" if report.scales else ""
        return f" at {report.scale:.0%} scale{reason}" if report.scale != 1 else ""
    parts = [f"{s.scale:.0%} scale for {s.share:.0%} ({s.reason})" for s in report.scales]
    return f" at {', '.join(parts)}"


def camera_lines(camera: "CameraInfo") -> list[str]:
    """A camera and its formats."""
    return [f"{camera.source}  {camera.description}", *(f"  {line}" for line in camera.formats)]


def statistics_line(statistics: "LiveStatistics") -> str:
    """How a live session is doing, on one line."""
    return (
        f"{statistics.frames} frames, {statistics.fps:.1f} of {statistics.source_fps:.1f} fps, "
        f"latency {1000 * statistics.latency_seconds:.0f} ms, dropped {statistics.dropped}, "
        f"{statistics.level or 'measuring'} {1000 * statistics.network_seconds:.0f} ms"
    )


def live_summary(report: "LiveReport") -> list[str]:
    """What became of a live session."""
    from mhnet_video.media.fidelity import counted

    statistics = report.statistics
    frames = counted(statistics.frames, "frame")
    lines = [f"{statistics.source}: {frames} restored, {statistics.dropped} dropped"]
    if statistics.level:
        lines.append(
            f"  model {statistics.level} on {statistics.device}, "
            f"latency {1000 * statistics.latency_seconds:.0f} ms"
        )
    if statistics.reconnects:
        times = counted(statistics.reconnects, "time")
        lines.append(f"  the source was lost and came back {times}")
    if statistics.damaged:
        lines.append(f"  damaged: {counted(statistics.damaged, 'packet')} could not be decoded")
    if report.recorded:
        lines.append(f"  recorded: {', '.join(report.recorded)}")
    if report.missed:
        missed = counted(report.missed, "frame")
        lines.append(f"  not recorded: {missed}, this machine was too slow")
    if report.lost:
        lines.append(f"  not kept: {'; '.join(report.lost)}")
    if report.forwarded:
        lines.append(f"  sent: {counted(report.forwarded, 'frame')}")
    return lines


def evaluation_table(result: "Evaluation") -> list[str]:
    """PSNR, SSIM and flicker, a row for each item and one for their mean.

    With a mask, PSNR of Y inside and outside of it, too.
    """
    width = max(len("mean"), *(len(row.name) for row in result.rows))
    metrics = [
        ("PSNR-Y", "psnr_y", ">8", ".2f"),
        ("SSIM-Y", "ssim_y", ">7", ".4f"),
        ("PSNR-RGB", "psnr_rgb", ">8", ".2f"),
        ("SSIM-RGB", "ssim_rgb", ">8", ".4f"),
        ("flicker", "flicker", ">7", ".3f"),
        ("inside", "psnr_inside", ">8", ".2f"),
        ("outside", "psnr_outside", ">8", ".2f"),
    ]
    mean = result.mean.rainy
    metrics = [metric for metric in metrics if getattr(mean, metric[1]) is not None]

    def cell(scores: "Scores") -> str:
        values = ((getattr(scores, name), size, form) for _, name, size, form in metrics)
        return " ".join(
            format("-" if value is None else format(value, form), size)
            for value, size, form in values
        )

    heads = " ".join(format(title, size) for title, _, size, _ in metrics)
    columns = ["input"] if result.model is None else ["input", result.model]
    lines = [
        "  ".join([" " * width, *(f"{name:^{len(heads)}}" for name in columns)]).rstrip(),
        "  ".join([" " * width, *(heads for _ in columns)]),
    ]
    for row in [*result.rows, result.mean]:
        cells = [cell(scores) for scores in (row.rainy, row.restored) if scores is not None]
        lines.append("  ".join([f"{row.name:<{width}}", *cells]))
    if result.equal:
        lines.append(f"equal to the clean ones, and not in the mean PSNR: {result.equal}")
    return lines


def flicker_table(clips: "Sequence[ClipFlicker]", name: str | None) -> list[str]:
    """The flicker of clips, a row for each.

    Args:
        clips: What was measured.
        name: The model's, which restored them; None if none did.
    """
    heads = ["input", "cut at median", "median", "restored" if name is None else name]
    lines = [["flicker", *heads, "taken out", "at rest"]]
    for clip in clips:
        levels = (clip.rainy, clip.cut, clip.median, clip.restored, clip.taken_out)
        cells = ["-" if level is None else f"{level:.3f}" for level in levels]
        lines.append([clip.name, *cells, f"{clip.at_rest:.0%}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            [
                f"{first:<{widths[0]}}",
                *(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)),
            ]
        )
        for first, *rest in lines
    ]


def training_line(
    config: "TrainConfig", step: int, minutes: float, loss_db: float, input_db: float
) -> str:
    """How training is doing, on one line."""
    line = f"{minutes:7.1f} of {config.minutes:g} min, step {step}: "
    return f"{line}error {loss_db:.2f} dB, of the input {input_db:.2f} dB"


def info_lines(info: "Info") -> list[str]:
    """Versions, devices, models and encoders."""
    lines = [f"{name:<14} {version}" for name, version in info.versions.items()]
    lines.append("")
    for name, what in {**info.system, **info.settings, **info.devices}.items():
        lines += textwrap.wrap(f"{name:<14} {what}", 100, subsequent_indent=15 * " ")
    lines += [f"{'engine':<14} {info.engine}", f"{'cache':<14} {info.cache or 'none'}", ""]
    width = max((len(model.name) for model in info.models), default=0)
    for model in info.models:
        size = f"{model.size_bytes / 1e6:.1f} MB"
        lines.append(f"{model.name:<{width}} {size}, {model.description}")
        if model.training:
            lines.append(f"{'':<{width}} {_history(model.training)}")
    if not info.models:
        lines.append("no models: pass --weights FILE")
    encoders = ", ".join(info.encoders)
    lines += ["", *textwrap.wrap(f"encoders that open here: {encoders}", 100)]
    return lines


def export_lines(report: "ExportReport") -> list[str]:
    """The summary of an export."""
    width, height = report.size or ("W", "H")
    aligned = "aligned inside" if report.aligns else ""
    if report.expects_aligned:
        aligned = "which must be aligned already"
    pictures = ", ".join(part for part in (f"{report.pictures} pictures", aligned) if part)
    channels = 3 * report.pictures
    return [
        f"{report.path}: {report.size_bytes / 2**20:.1f} MiB, {report.model}",
        f"  input   window [1, {channels}, {height}, {width}] float32 in [0, 1]: {pictures}",
        f"  outputs residual, restored [1, 3, {height}, {width}] float32"
        + ("" if report.size else f"; W and H multiples of {report.multiple}"),
        f"  worst error against PyTorch {report.worst_error:.1e}, "
        f"{255 * report.worst_error:.4f} levels of 255",
    ]


def _history(training: dict[str, Any]) -> str:
    """Training of weights: minutes and steps over all stages, each begun with the one before."""
    from mhnet_video.media.fidelity import counted

    stages = [training]
    while before := stages[-1].get("before"):
        stages.append(before)
    minutes, steps = (sum(stage.get(key, 0) for stage in stages) for key in ("minutes", "steps"))
    what = counted(len(stages), "stage")
    return f"trained for {minutes:.0f} minutes, {steps:,} steps in {what}; --json has the settings"


def to_json(value: Any) -> str:
    """Plain values as JSON for programs."""
    return json.dumps(value, indent=2, ensure_ascii=False)
