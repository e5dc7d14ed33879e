"""How deletion and insertion are measured: units, steps and baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from lightning_cam.attribution.fields import Cells, Count, Seed, check_fields
from lightning_cam.attribution.perturbation import Reference
from lightning_cam.errors import ArgumentError, UnknownNameError

Hiding = Literal[Reference, "road", "road_time"]
IMPUTED = ("road", "road_time")  # what stands for a voxel depends on what else is hidden
PerturbationUnit = Literal["voxel", "frame"] | Cells


@dataclass(frozen=True)
class Protocol:
    """How curves are measured.

    Attributes:
        steps: S, each an equal share of the units.
        deleted: what hidden voxels become in deletion, see `attribution.perturbation.reference`;
            or `"road"`: filled in from those around them in the frame, `"road_time"`: and in the
            frames before and after, see `road.imputed`.
        inserted: what insertion starts from.
        unit: `"voxel"`, `"frame"`, or the size of blocks `(t, h, w)`; a unit's heat is its mean.
        order: `"most"` relevant first (MoRF), or `"least"` (LeRF).
        voxels: voxels that change with each step, instead of `steps`; for `unit="voxel"`.
        raw: score the columns of a classifier rather than its probabilities.
        seed: of the ranks of equal heat.
        batch: rows that go through the network together; None: as many as fill the device.
        bf16: run the network under bfloat16 autocast.
    """

    steps: Count = 100
    deleted: Hiding = "black"
    inserted: Hiding = "blur"
    unit: PerturbationUnit = "voxel"
    order: Literal["most", "least"] = "most"
    voxels: Count | None = None
    raw: bool = False
    seed: Seed = 0
    batch: Count | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.voxels is not None and self.unit != "voxel":
            raise ArgumentError(f"voxels={self.voxels} is for single voxels; give steps instead")

    @classmethod
    def of(cls, protocol: Protocol | str, **changes: Any) -> Protocol:
        """A protocol, or one of `PROTOCOLS` by name, with some settings changed.

        Raises:
            UnknownNameError: there is no such protocol, or a protocol has no such setting.
            ArgumentError: a setting makes no sense.
        """
        known = [f.name for f in fields(cls)]
        for name in changes:
            if name not in known:
                raise UnknownNameError("setting of a protocol", name, known)
        if isinstance(protocol, str):
            if protocol not in PROTOCOLS:
                raise UnknownNameError("protocol", protocol, PROTOCOLS)
            protocol = PROTOCOLS[protocol]
        if not isinstance(protocol, Protocol):
            raise ArgumentError(f"protocol={protocol} must be one of {', '.join(PROTOCOLS)}")
        if changes.get("steps") is None:  # the protocol's
            changes.pop("steps", None)
        else:
            changes.setdefault("voxels", None)
        return replace(protocol, **changes)

    @property
    def frame_wise(self) -> bool:
        """Whether whole frames change, each to one other frame whatever else has changed."""
        return self.unit == "frame" and not {self.deleted, self.inserted} & {*IMPUTED}

    @property
    def words(self) -> str:
        """The protocol of `PROTOCOLS` it is nearest to, and what differs: "default, steps=20"."""
        names = [f.name for f in fields(self) if f.name != "batch"]  # changes no number

        def changed(base: Protocol) -> list[str]:
            values = {name: getattr(self, name) for name in names}
            return [f"{name}={v}" for name, v in values.items() if v != getattr(base, name)]

        name, changes = min(
            ((name, changed(base)) for name, base in PROTOCOLS.items()),
            key=lambda pair: len(pair[1]),
        )
        return ", ".join([name, *changes])


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "default": Protocol(),
        # Bayer et al., 2022: 100 points, black; insertion starts from a quarter of the resolution.
        "bayer2022": Protocol(steps=99, inserted="zoom"),
        # Petsiuk et al., 2018, for images: 224 pixels a step, the mean colour, their own blur.
        "rise": Protocol(deleted="mean", inserted="rise", voxels=224),
    }
)
