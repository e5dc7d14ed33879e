"""Video files, data sets and their loaders; `read_clip` reads any video.

A data set is a subclass of `VideoDataModule` (labelled clips) or of `SnippetDataModule` (images of
a moving camera). Those that come with the package are in `clips`, `multispectral` and `drives`.
"""

import lazy_loader

# Names load when first used: importing one module must not import every data set.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
