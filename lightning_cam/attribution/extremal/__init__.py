"""Extremal perturbation: the smallest part of a clip that keeps, or loses, the answer."""

from lightning_cam.attribution.extremal.method import ExtremalPerturbation

__all__ = ["ExtremalPerturbation"]
