from .kitti_formatted import KittiFormatted as KittiFormatted
from .kitti_odometry import KittiOdometry as KittiOdometry
from .kitti_raw import KittiRaw as KittiRaw
