"""The core of every data set: modules, datasets, clips, transforms, selection, ground truth."""
