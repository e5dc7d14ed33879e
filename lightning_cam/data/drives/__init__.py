"""Data sets of a moving camera, for depth and ego-motion: KITTI and other data in its formats."""

import lazy_loader

# Names load when first used: importing one module must not import every data set.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
