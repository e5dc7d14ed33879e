"""How deletion and insertion are measured: units, steps and baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from lightning_cam.attribution.perturbation import Reference
from lightning_cam.errors import UnknownNameError

Hiding = Literal[Reference, "road", "road_time"]
IMPUTED = ("road", "road_time")  # what stands for a voxel depends on what else is hidden
PerturbationUnit = Literal["voxel", "frame"] | tuple[int, int, int]


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

    steps: int = 100
    deleted: Hiding = "black"
    inserted: Hiding = "blur"
    unit: PerturbationUnit = "voxel"
    order: Literal["most", "least"] = "most"
    voxels: int | None = None
    raw: bool = False
    seed: int = 0
    batch: int | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.unit, list | tuple):
            object.__setattr__(self, "unit", tuple(self.unit))
        blocks = self.unit in ("voxel", "frame") or (
            isinstance(self.unit, tuple)
            and len(self.unit) == 3
            and all(isinstance(n, int) and n > 0 for n in self.unit)
        )
        if not blocks:
            raise ValueError(f'unit must be "voxel", "frame" or (t, h, w), got {self.unit!r}')
        if self.order not in ("most", "least"):
            raise ValueError(f'order must be "most" or "least", got {self.order!r}')
        for name in ("deleted", "inserted"):
            if getattr(self, name) not in get_args(Hiding):
                names = ", ".join(get_args(Hiding))
                raise ValueError(f"{name} must be one of {names}, got {getattr(self, name)!r}")
        for name in ("steps", "voxels", "batch"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 on, got {value!r}")
        if self.voxels is not None and self.unit != "voxel":
            raise ValueError(f"voxels={self.voxels} is for single voxels; give steps instead")

    @classmethod
    def of(cls, protocol: Protocol | str, **changes: Any) -> Protocol:
        """A protocol, or one of `PROTOCOLS` by name, with some settings changed.

        Raises:
            UnknownNameError: there is no such protocol, or a protocol has no such setting.
            ValueError: a setting makes no sense.
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
            raise ValueError(f"protocol={protocol} must be one of {', '.join(PROTOCOLS)}")
        if changes.get("steps") is not None:
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
