"""Where a camera was: what it recorded of that, carried along and written as a track."""
