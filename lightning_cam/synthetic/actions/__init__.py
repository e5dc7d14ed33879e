"""Synthetic actions: eleven classes that differ by motion alone, in the layout of UCF11."""
