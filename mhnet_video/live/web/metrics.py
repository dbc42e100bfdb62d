"""The statistics of a live run as Prometheus metrics."""

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from mhnet_video.live.statistics import LiveStatistics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of the text that `exposition` returns."""

_PREFIX = "mhnet_video"
"""First part of the name of each metric."""


def exposition(
    statistics: LiveStatistics, *, is_up: bool, is_recording: bool, visitors: int
) -> bytes:
    """The metrics in the text format of Prometheus.

    Args:
        statistics: Of the run.
        is_up: Whether a frame came lately.
        is_recording: Whether frames are recorded.
        visitors: Visitors who watch.
    """
    return generate_latest(_Metrics(statistics, is_up, is_recording, visitors))


class _Metrics(Collector):
    def __init__(
        self, statistics: LiveStatistics, is_up: bool, is_recording: bool, visitors: int
    ) -> None:
        self._statistics = statistics
        self._is_up = is_up
        self._is_recording = is_recording
        self._visitors = visitors

    def collect(self) -> Iterator[Metric]:
        s = self._statistics
        counters = [
            ("frames", "Frames restored.", s.frames),
            ("dropped", "Frames dropped for newer ones.", s.dropped),
            ("reconnects", "Times the source came back.", s.reconnects),
            ("damaged", "Packets that could not be decoded.", s.damaged),
        ]
        gauges: list[tuple[str, str, float]] = [
            ("up", "Whether a frame came in the last ten seconds.", self._is_up),
            ("recording", "Whether frames are recorded.", self._is_recording),
            ("fps", "Frames shown per second.", s.fps),
            ("source_fps", "Frames per second of the source.", s.source_fps),
            ("latency_seconds", "Median time from arrival to display.", s.latency_seconds),
            ("network_seconds", "Restoration time of the last frame.", s.network_seconds),
            ("scale", "Working scale of the network.", s.scale),
            ("visitors", "Visitors who watch the page.", self._visitors),
        ]
        for name, what, count in counters:
            yield CounterMetricFamily(f"{_PREFIX}_{name}", what, count)
        for name, what, value in gauges:
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", what, value)
        labels = {"model": s.model, "device": s.device, "engine": s.engine}
        yield InfoMetricFamily(_PREFIX, "What restores.", labels)
