"""The metrics of depth and motion for one evaluation stage."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_cam.geometry import invert
from lightning_cam.interfaces import Batch
from lightning_cam.metrics.depth import DEPTH_ERRORS, Crop, DepthErrors
from lightning_cam.metrics.odometry.errors import SnippetErrors, TrajectoryErrors
from lightning_cam.metrics.odometry.trajectories import chain

MEASURED = (  # names of what `OdometryScores` computes
    *(f"depth/{name}" for name in (*DEPTH_ERRORS, "constant/abs_rel", "images", "unscored")),
    *(f"pose/{name}" for name in ("ate", "ate_std", "re", "re_std", "zero/ate", "snippets",
                                  "unscored")),
    *(f"trajectory/{name}" for name in ("rmse", "t_rel", "r_rel", "frames", "left_out", "broken")),
)  # fmt: skip
_COUNTS = ("images", "snippets", "frames", "unscored", "left_out", "broken")
_SNIPPET = 5  # frames, as published, whatever the network's own snippet
_EXAMPLES = 6  # depth images an epoch


class Example(NamedTuple):
    """One target, for an image; on the CPU.

    Attributes:
        name: clip and frame.
        frame: `(3, H, W)`, normalised.
        depth: `(H, W)`, predicted.
        truth: `(h, w)` metres, 0 where unknown; None where there is none at all.
    """

    name: str
    frame: Tensor
    depth: Tensor
    truth: Tensor | None


class OdometryScores(nn.Module):
    """Depth against ground truth, motions over five frames, and whole trajectories.

    A network of snippets of five frames is measured on its own snippets. One of three has motions
    to the frames beside a target only: they are chained to snippets of five.

    Args:
        snippet: frames the network takes.
        depth_cap: metres beyond which true depth does not count.
        depth_crop: "garg" or None, see `metrics.depth_errors`.
    """

    def __init__(self, snippet: int, depth_cap: float = 80.0, depth_crop: Crop = None) -> None:
        super().__init__()
        self.snippet = snippet
        self.depth = DepthErrors(cap=depth_cap, crop=depth_crop)
        self.snippets = SnippetErrors()
        self.whole = TrajectoryErrors()
        self.lost = ""  # what the last `compute` could not score, in words
        self.names: dict[int, str] = {}  # of sequences
        self.examples: list[Example] = []  # spread evenly over the clips
        self._clips, self._every = 0, 1

    def update(self, batch: Batch, counted: Tensor, disparity: Tensor, motions: Tensor) -> None:
        """Add a batch.

        Args:
            batch: see `StructureFromMotion`.
            counted: `(B, S)` bool, the targets with a whole snippet.
            disparity: `(R, 1, H, W)` of all R = B*S targets.
            motions: `(R, N, 4, 4)`, target -> source.
        """
        clips, targets = counted.shape
        depth = (1 / disparity[:, 0].detach()).unflatten(0, (clips, targets))
        motions = motions.detach().double().unflatten(0, (clips, targets))
        margin = self.snippet // 2
        for n in range(clips):
            rows = counted[n].nonzero()[:, 0].tolist()
            if not rows:
                continue
            truth = batch["depth"][n] if "depth" in batch else ()
            for s in rows:
                known = torch.as_tensor(truth[s + margin]) if len(truth) else None
                if known is not None:
                    self.depth.update(depth[n, s], known.to(depth.device))
            self._keep_example(batch, n, rows[len(rows) // 2], depth, truth)
            if "poses" in batch:
                for first, stop in _runs(rows):
                    self._motion(batch, n, motions[n, first:stop], first)

    def _motion(self, batch: Batch, n: int, motions: Tensor, first: int) -> None:
        """Add the motions (S, N, 4, 4) of consecutive targets of one clip."""
        margin = self.snippet // 2
        frames = slice(first, first + len(motions) + 2 * margin)
        poses = batch["poses"][n, frames].double()  # of the targets and all their sources
        ahead = motions[:, margin]  # T_{t->t+1}
        before = invert(motions[:1, margin - 1])  # T_{t-1->t} of the first target
        steps = torch.cat([before, ahead])  # from frame margin - 1 on
        known = poses[margin - 1 : margin + len(motions) + 1]
        true = invert(known[1:]) @ known[:-1]
        numbers = batch["frame_idx"][n, frames][margin - 1 :][: len(steps)].to(steps.device)
        name = batch["sequence"][n]
        key = crc32(name.encode())
        self.names[key] = name
        self.whole.update(torch.full_like(numbers, key), numbers, steps, true)
        if margin > 1:
            middle = torch.eye(4).to(motions).expand(len(motions), 1, 4, 4)
            to_each = torch.cat([motions[:, :margin], middle, motions[:, margin:]], 1)
            predicted = to_each[:, :1] @ invert(to_each)  # P_i = T_{c->0} inv(T_{c->i})
            self.snippets.update(predicted, _windows(poses, self.snippet))

    def _keep_example(self, batch: Batch, n: int, s: int, depth: Tensor, truth: Any) -> None:
        self._clips += 1
        if (self._clips - 1) % self._every:
            return
        if len(self.examples) == _EXAMPLES:  # every second one makes room
            self.examples, self._every = self.examples[::2], 2 * self._every
            if (self._clips - 1) % self._every:
                return
        t = s + self.snippet // 2
        known = torch.as_tensor(truth[t]).clone() if len(truth) else None
        name = f"{batch['clip_id'][n]}, frame {int(batch['frame_idx'][n, t])}"
        frame = batch["video"][n, :, t].float().cpu()
        self.examples.append(Example(name, frame, depth[n, s].float().cpu(), known))

    def compute(self) -> dict[str, Tensor]:
        """What is known, over all ranks; metrics without ground truth are left out.

        Errors are NaN where any image or snippet was predicted as what is no depth or motion, for a
        mean over the rest would reward a network for failing; `lost` then says how many.
        """
        found: dict[str, Tensor] = {}
        with warnings.catch_warnings():
            # Data need not have truth, nor every rank a clip that has some.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            depth, whole = self.depth.compute(), self.whole.compute()
            snippets = self._chained() if self.snippet < _SNIPPET else self.snippets.compute()
        if depth["images"] or depth["unscored"]:
            found |= {f"depth/{name}": value for name, value in depth.items()}
        if snippets["snippets"] or snippets["unscored"]:
            found |= {f"pose/{name}": value for name, value in snippets.items()}
        if whole["frames"]:
            found |= {f"trajectory/{k}": v for k, v in whole.items() if not v.isnan()}
        counts = {
            "images have a depth that is not positive and finite": depth["unscored"],
            "snippets have motions that are not finite": snippets["unscored"],
            "motions are not finite": whole["broken"],
        }
        said = [f"{int(count)} {what}" for what, count in counts.items() if count]
        self.lost = f"{', '.join(said)}; their errors are NaN" if said else ""
        for kind, bad in zip(("depth", "pose", "trajectory"), counts.values(), strict=True):
            if bad or (kind == "pose" and whole["broken"]):
                found |= {
                    name: value * torch.nan
                    for name, value in found.items()
                    if name.startswith(f"{kind}/") and name.rpartition("/")[2] not in _COUNTS
                }
        return found

    def _chained(self) -> dict[str, Tensor]:
        """Errors of all stretches of five frames of whole sequences, of all ranks."""
        errors = SnippetErrors(sync_on_compute=False).to(self.whole.broken.device)
        for motions, true in self.whole.motions().values():
            if len(motions) + 1 >= _SNIPPET:
                errors.update(_windows(chain(motions), _SNIPPET), _windows(chain(true), _SNIPPET))
        return errors.compute()

    def trajectories(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Sequence -> predicted and true poses (n, 4, 4), aligned; every rank must call it."""
        found, names = self.whole.trajectories(), self.names
        if dist.is_available() and dist.is_initialized():  # other ranks have other sequences
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self.names)
            names = {key: name for part in parts for key, name in part.items()}
        return {names[key]: poses for key, poses in found.items()}

    def reset(self) -> None:
        """Forget everything."""
        for metric in (self.depth, self.snippets, self.whole):
            metric.reset()
        self.examples, self._clips, self._every = [], 0, 1


def _runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the runs of consecutive numbers in ascending ones."""
    start = 0
    for n in range(1, len(rows) + 1):
        if n == len(rows) or rows[n] != rows[n - 1] + 1:
            yield rows[start], rows[n - 1] + 1
            start = n


def _windows(poses: Tensor, length: int) -> Tensor:
    """All stretches of `length` of consecutive poses, (n, 4, 4) -> (n - length + 1, length, 4, 4).

    Relative to their own first frames, as `snippet_errors` sees them anyway.
    """
    return poses.unfold(0, length, 1).movedim(-1, 1)
