"""Published annotations of videos: where somebody acts, frame by frame, as masks or boxes."""
