"""Data sets of labelled clips: UCF11, HMDB51, Kinetics, Something-Something, your folders."""

import lazy_loader

# Names load when first used: importing one module must not import every data set.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
