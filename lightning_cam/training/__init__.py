"""One training run: built from settings, saved, found again, logged, repeatable."""
