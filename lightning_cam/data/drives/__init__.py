"""Data sets of a moving camera, for depth and ego-motion: KITTI and its relatives."""
