"""Extensions by which pictures and videos in folders are known; a file that is named needs none."""

PICTURE_SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
        *(".heic", ".heif", ".avif"),
    }
)
"""Of pictures that are read."""
VIDEO_SUFFIXES = frozenset(
    {
        *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dav", ".divx", ".f4v", ".flv"),
        *(".h264", ".h265", ".hevc", ".insv", ".ivf", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg"),
        *(".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpegts", ".mpg", ".mts", ".mxf", ".nut"),
        *(".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    }
)
"""Of videos."""
PREVIEW_SUFFIXES = frozenset({".lrf", ".lrv"})
"""Of the small copies that cameras of GoPro, Garmin, Insta360 and DJI keep of each recording."""
