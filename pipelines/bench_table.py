"""Text report of the GPU benchmark."""

from typing import Any

_SHOWN = {
    "encoder": "",
    "decibels": "dB",
    "ms": "ms",
    "sum_ms": "ms of kernels",
    "failed": "",
    "eager_ms": "ms eager",
    "against_eager": "times eager",
    "eager_failed": "(eager)",
    "compiled_ms": "ms compiled",
    "against_compiled": "times compiled",
    "compiled_failed": "(compiled)",
    "of_copy": "of the copy's bytes",
    "of_product": "of the product's operations",
    "memory": "bytes",
    "peak_memory": "bytes at the most",
    "temporal_filter": "temporal filter",
    "runs": "equal runs",
    "launches": "launches",
    "fps": "frames a second",
    "network_ms": "ms network",
    "overlap": "overlap",
    "latency_ms": "ms latency",
    "decode_fps": "frames a second decoded",
    "restore_fps": "restored",
    "encode_fps": "encoded",
    "codecs_fps": "frames a second without network",
    "log": "",
}
"""Keys of a row that the report shows, with their units."""


_MOST_KERNELS = 12
"""Kernels that a row lists by their time; the JSON has all."""


def to_lines(figures: dict[str, Any]) -> list[str]:
    """The report, a line for each row."""
    machine = figures["machine"]
    lines = [
        f"{machine['device']}: copy {machine['copy_gbs']:.0f} GB/s, product "
        f"{machine['product_tflops']:.0f} TFLOP/s; PyTorch {machine['torch']}"
    ]
    for section in ("networks", "streams", "files", "kernels"):
        lines += [f"{section}: {row_line(row)}" for row in figures[section]]
    return lines


def row_line(row: dict[str, Any]) -> str:
    """A row's name, size and figures; empty if it is not of a network, a kernel or a variant."""
    values = [_cell(key, row[key]) for key in row if key in _SHOWN]
    for name, found in list(row.get("by_kernel", {}).items())[:_MOST_KERNELS]:
        values.append(f"{name} {found['ms']:.3f} ms in {found['launches']:.0f}")
    if "network" in row:
        names = [row["network"], *([row["part"]] if "part" in row else [])]
    elif "kernel" in row:
        names = [row["kernel"], f"{row['channels']} channels"]
    elif "fronts" in row:
        names = ["first half", f"{row['channels']} channels"]
        values = [f"{name} {ms:.3f} ms" for name, ms in row["fronts"].items()]
    else:
        return ""
    return f"{', '.join(names)} {'x'.join(map(str, row['size']))}: {', '.join(values)}"


def _cell(key: str, value: Any) -> str:
    if isinstance(value, dict):
        value, low, high = value["median"], value["low"], value["high"]
        return f"{value:.3f} ({low:.3f} to {high:.3f}) {_SHOWN[key]}"
    shown = f"{value:.4g}" if isinstance(value, float | int) else str(value)
    return f"{shown} {_SHOWN[key]}".strip()
