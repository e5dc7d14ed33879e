"""Data sets of labelled clips: UCF11, HMDB51, Kinetics, Something-Something, and folders."""
