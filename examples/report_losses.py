"""Restore a file, and write what its output lacks to a CSV file, with sizes and reasons.

python examples/report_losses.py in.mp4 out.mp4 losses.csv
"""

import csv
import sys
from dataclasses import asdict, fields

from mhnet_video import RestoreConfig, restore_video
from mhnet_video.media.fidelity import Loss


def main(source: str, destination: str, table: str) -> int:
    """Restore and report; the number of losses."""
    report = restore_video(source, destination, RestoreConfig(overwrite=True))
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Loss)])
        writer.writeheader()
        writer.writerows(asdict(loss) for loss in report.losses)
    known = sum(loss.bytes or 0 for loss in report.losses)
    print(f"{len(report.losses)} losses, {known} bytes, {report.damaged} damaged packets or frames")
    return len(report.losses)


if __name__ == "__main__":
    main(*sys.argv[1:])
