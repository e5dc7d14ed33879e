"""Measures of heatmaps, and errors of depth and ego-motion."""

from lightning_cam.metrics.comparisons import (
    Telling,
    class_mean,
    gain_over_random,
    span_share,
    telling,
)
from lightning_cam.metrics.deletion_insertion import Curve, Ends, deletion, insertion
from lightning_cam.metrics.depth import DepthErrors, depth_errors
from lightning_cam.metrics.explained import (
    CurveMeasure,
    Explained,
    Measure,
    Measured,
    format_number,
    measure,
    number_column,
    settings_of,
    titles,
)
from lightning_cam.metrics.faithfulness import (
    Infidelity,
    SensitivityN,
    infidelity,
    sensitivity_n,
)
from lightning_cam.metrics.gini import GiniIndex, gini_index
from lightning_cam.metrics.localisation import (
    EnergyPointingGame,
    PointingGame,
    TemporalIoU,
    energy_inside,
    pointing_hits,
    temporal_iou,
)
from lightning_cam.metrics.mean_curves import (
    Deletion,
    Insertion,
    MeanCurve,
    summarise,
)
from lightning_cam.metrics.measures import (
    ActionIoU,
    DeletionArea,
    EnergyShare,
    InsertionArea,
    PointingHit,
)
from lightning_cam.metrics.odometry.errors import SnippetErrors, TrajectoryErrors, snippet_errors
from lightning_cam.metrics.odometry.trajectories import (
    Similarity,
    align_trajectories,
    chain,
    constant_velocity,
    kitti_errors,
    umeyama,
)
from lightning_cam.metrics.overlap import (
    AveragePrecision,
    MaskIoU,
    average_precision,
    iou,
    rank_accuracy,
)
from lightning_cam.metrics.protocol import PROTOCOLS, Protocol
from lightning_cam.metrics.ranks import spearman
from lightning_cam.metrics.sanity import (
    Randomised,
    Verdict,
    WeightRandomisation,
    randomisation,
    verdict,
)
from lightning_cam.metrics.stability import MaxSensitivity, max_sensitivity
from lightning_cam.metrics.statistics import Statistics, interval, mean_interval, mean_std_interval
from lightning_cam.metrics.sufficiency import (
    AverageDrop,
    Drop,
    SufficientShare,
    average_drop,
    sufficient_share,
)

__all__ = [
    "PROTOCOLS",
    "ActionIoU",
    "AverageDrop",
    "AveragePrecision",
    "Curve",
    "CurveMeasure",
    "Deletion",
    "DeletionArea",
    "DepthErrors",
    "Drop",
    "Ends",
    "EnergyPointingGame",
    "EnergyShare",
    "Explained",
    "GiniIndex",
    "Infidelity",
    "Insertion",
    "InsertionArea",
    "MaskIoU",
    "MaxSensitivity",
    "MeanCurve",
    "Measure",
    "Measured",
    "PointingGame",
    "PointingHit",
    "Protocol",
    "Randomised",
    "SensitivityN",
    "Similarity",
    "SnippetErrors",
    "Statistics",
    "SufficientShare",
    "Telling",
    "TemporalIoU",
    "TrajectoryErrors",
    "Verdict",
    "WeightRandomisation",
    "align_trajectories",
    "average_drop",
    "average_precision",
    "chain",
    "class_mean",
    "constant_velocity",
    "deletion",
    "depth_errors",
    "energy_inside",
    "format_number",
    "gain_over_random",
    "gini_index",
    "infidelity",
    "insertion",
    "interval",
    "iou",
    "kitti_errors",
    "max_sensitivity",
    "mean_interval",
    "mean_std_interval",
    "measure",
    "number_column",
    "pointing_hits",
    "randomisation",
    "rank_accuracy",
    "sensitivity_n",
    "settings_of",
    "snippet_errors",
    "span_share",
    "spearman",
    "sufficient_share",
    "summarise",
    "telling",
    "temporal_iou",
    "titles",
    "umeyama",
    "verdict",
]
