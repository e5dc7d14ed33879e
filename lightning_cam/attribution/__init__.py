"""Attribution methods: each maps a model, a clip and a target column to a heatmap."""

from lightning_cam.attribution.attention_maps import AttentionRelevance, AttentionRollout
from lightning_cam.attribution.averaged_gradients import IntegratedGradients, SmoothGrad
from lightning_cam.attribution.baselines import (
    CentreMap,
    EdgeMap,
    MotionMap,
    RandomMap,
    TruthMap,
)
from lightning_cam.attribution.cam import CAM
from lightning_cam.attribution.cam_family import (
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from lightning_cam.attribution.checkup import Checkup, LayerCheck, check
from lightning_cam.attribution.conservative import ConservativePropagation
from lightning_cam.attribution.contrast import Contrast, explain_contrast
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.explanation import Explanation, explain
from lightning_cam.attribution.extremal.method import ExtremalPerturbation
from lightning_cam.attribution.gradcam import GradCAM
from lightning_cam.attribution.gradient import Gradient, GradientXInput
from lightning_cam.attribution.guided_backprop import GuidedBackprop
from lightning_cam.attribution.guided_gradcam import GuidedGradCAM
from lightning_cam.attribution.layers import LayerInfo, list_layers
from lightning_cam.attribution.method import Attribution, Cost, LayerAttribution
from lightning_cam.attribution.occlusion import Occlusion
from lightning_cam.attribution.recurrent_gradcam import (
    IntegratedRecurrentGradCAM,
    RecurrentGradCAM,
    step_energy,
    step_maps,
)
from lightning_cam.attribution.regression_gradcam import RegressionGradCAM
from lightning_cam.attribution.relevance import LRP, ExcitationBackprop
from lightning_cam.attribution.rise import RISE
from lightning_cam.attribution.score_cam import ScoreCAM
from lightning_cam.attribution.sidu import SIDU
from lightning_cam.attribution.similarity import similarity_to
from lightning_cam.attribution.spectrum_relevance import SpectrumRelevance, spectrum_relevance
from lightning_cam.attribution.supervoxels import Supervoxels
from lightning_cam.attribution.temporal_masks import TemporalMask

__all__ = [
    "CAM",
    "LRP",
    "RISE",
    "SIDU",
    "AttentionRelevance",
    "AttentionRollout",
    "Attribution",
    "CentreMap",
    "Checkup",
    "ConservativePropagation",
    "Contrast",
    "Cost",
    "EdgeMap",
    "ExcitationBackprop",
    "Explainable",
    "Explanation",
    "ExtremalPerturbation",
    "Forward",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "IntegratedGradients",
    "IntegratedRecurrentGradCAM",
    "LayerAttribution",
    "LayerCAM",
    "LayerCheck",
    "LayerInfo",
    "MotionMap",
    "Occlusion",
    "RandomMap",
    "RecurrentGradCAM",
    "RegressionGradCAM",
    "ScoreCAM",
    "SmoothGrad",
    "SpectrumRelevance",
    "Supervoxels",
    "TemporalMask",
    "TruthMap",
    "XGradCAM",
    "check",
    "explain",
    "explain_contrast",
    "list_layers",
    "similarity_to",
    "spectrum_relevance",
    "step_energy",
    "step_maps",
]
