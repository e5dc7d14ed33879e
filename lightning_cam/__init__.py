"""Train video networks and see why they decide as they do.

Names load when first used: `import lightning_cam` costs little more than `import torch`.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
