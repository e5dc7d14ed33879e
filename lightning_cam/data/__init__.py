"""Video files, data sets and their loaders; `video.read_clip` is the only reader."""
