from .actions.data_module import SyntheticActionPairs as SyntheticActionPairs
from .actions.data_module import SyntheticActions as SyntheticActions
from .multispectral.data_module import SyntheticMultispectral as SyntheticMultispectral
from .odometry.data_module import SyntheticOdometry as SyntheticOdometry
from .something.data_module import SyntheticSomething as SyntheticSomething
