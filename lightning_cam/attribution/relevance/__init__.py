"""What a score rests on, passed down layer by layer: LRP and excitation backprop, with zennit."""

from lightning_cam.attribution.relevance.method import LRP, ExcitationBackprop

__all__ = ["LRP", "ExcitationBackprop"]
