"""The thread that restores the clips that wait, one after the other."""

import threading
from functools import partial
from pathlib import Path

from mhnet_video.app.clip_files import move_beside_others, result_name
from mhnet_video.app.clips import Clips, Outcome, Restore, UploadedClip
from mhnet_video.closing import Closing
from mhnet_video.errors import MHNetVideoError, unforeseen
from mhnet_video.media.output_file import why_unwritable


class RestoringQueue(Closing):
    """Restores clips in the order of the queue until it is closed.

    Args:
        clips: The clips on the page.
        restore: Restores one clip.
        keep_in: Folder into which results are moved, named after their clips; None to keep them
            with the clips.
    """

    def __init__(self, clips: Clips, restore: Restore, keep_in: Path | None = None) -> None:
        self._clips = clips
        self._restore = restore
        self._keep_in = keep_in
        self._thread = threading.Thread(target=self._run, name="mhnet-video queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the restoration at the next frame."""
        self._clips.close()
        self._thread.join()

    def _run(self) -> None:
        while (clip := self._clips.take()) is not None:
            self._clips.finish(clip, self._outcome(clip))

    def _outcome(self, clip: UploadedClip) -> Outcome:
        try:
            outcome = self._restore(clip, partial(self._clips.progressed, clip))
            if outcome.result is None or self._keep_in is None:
                return outcome
            name = result_name(clip.name, outcome.result.suffix)
            kept = move_beside_others(outcome.result, self._keep_in, name)
            return Outcome(result=kept, lost=outcome.lost)
        except MHNetVideoError as error:
            return Outcome(reason=str(error))
        except OSError as error:
            return Outcome(reason=f"{clip.name} cannot be kept: {why_unwritable(error)}.")
        except Exception as error:  # the next clip may go better
            return Outcome(reason=unforeseen(error))
