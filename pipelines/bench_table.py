"""Text report of the GPU benchmark."""

from typing import Any

_SHOWN = {
    "encoder": "",
    "decibels": "dB",
    "ms": "ms",
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


def to_lines(figures: dict[str, Any]) -> list[str]:
    """The report, a line for each row."""
    machine = figures["machine"]
    lines = [
        f"{machine['device']}: copy {machine['copy_gbs']:.0f} GB/s, product "
        f"{machine['product_tflops']:.0f} TFLOP/s; PyTorch {machine['torch']}"
    ]
    for section in ("networks", "streams", "files", "kernels"):
        for row in figures[section]:
            name = row.get("network") or f"{row['kernel']}, {row['channels']} channels"
            size = "x".join(map(str, row["size"]))
            values = [_cell(key, row[key]) for key in row if key in _SHOWN]
            lines.append(f"{section}: {name} {size}: {', '.join(values)}")
    return lines


def _cell(key: str, value: Any) -> str:
    if isinstance(value, dict):
        value, low, high = value["median"], value["low"], value["high"]
        return f"{value:.3f} ({low:.3f} to {high:.3f}) {_SHOWN[key]}"
    shown = f"{value:.4g}" if isinstance(value, float | int) else str(value)
    return f"{shown} {_SHOWN[key]}".strip()
