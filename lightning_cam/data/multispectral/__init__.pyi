from .module import Multispectral as Multispectral
from .reader import SpectralReader as SpectralReader
from .reader import load_registration as load_registration
