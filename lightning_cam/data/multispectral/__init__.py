"""The Multispectral Action Dataset: infrared and visible sequences, alone, together or fused."""

import lazy_loader

# Names load when first used: importing one module must not import every data set.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
