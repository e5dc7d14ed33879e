"""Synthetic data sets: their renderers and data modules, with ground truth of the evidence."""

import lazy_loader

# Names load when first used: importing one module must not import every data set.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
