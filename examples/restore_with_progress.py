"""Restore a file and tell how far it has come; Ctrl-C finishes the file up to the last frame.

python examples/restore_with_progress.py in.mp4 out.mp4
"""

import sys
import threading

from mhnet_video import MHNetVideoError, RestoreConfig, restore_video
from mhnet_video.pipelines.restore import Progress


def tell(progress: Progress) -> None:
    """Write one line over the last one."""
    total = f" of {progress.total}" if progress.total else ""
    rate = progress.frames / progress.seconds if progress.seconds else 0.0
    print(f"\r{progress.frames}{total} frames, {rate:.1f} a second", end="", file=sys.stderr)


def main(source: str, destination: str) -> int:
    """Restore the source; the exit status."""
    stop = threading.Event()  # another thread may set it to end the run early
    try:
        report = restore_video(
            source, destination, RestoreConfig(overwrite=True), on_progress=tell, stop=stop
        )
    except MHNetVideoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\n{report.destination}: {report.frames} frames in {report.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
