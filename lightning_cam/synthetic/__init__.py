"""The embedded data: rendered on first use, with ground truth."""
