from .folder import VideoFolder as VideoFolder
from .hmdb51 import HMDB51 as HMDB51
from .kinetics import Kinetics as Kinetics
from .something import SomethingSomething as SomethingSomething
from .ucf11 import UCF11 as UCF11
