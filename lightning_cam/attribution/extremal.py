"""proto"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.ops import at_least_float32, gradients
from lightning_cam.attribution.perturb import Runner, answers, blurred, reference
from lightning_cam.attribution.progress import progress
from lightning_cam.attribution.soft_masks import SmoothMasks, core_loss, ranking_loss

_GROWTH = 1.0008668
TRACE = None

@dataclass(frozen=True)
class ExtremalPerturbation:
    variant: str = "step"
    areas: tuple = (0.1,)
    iterations: int = 800
    lr: float = 0.05
    data_weight: float | None = None
    area_weight: float = 300.
    core_weight: float | None = None
    growth: float|None = None
    core: tuple | None = None
    core_after: int = 100
    step: int | None = None
    sigma: int | None = None
    blur: float = 20.0
    game: str = "preserve"
    reference: str = "blur"
    area_on: str = "crop"
    smooth: float | None = None
    batch: int | None = None
    normal: float = 4096
    momentum: float = 0.9

    def __call__(self, model, clip, target):
        runner = Runner(model, clip, self.batch)
        outputs = runner.forward(clip)
        chosen = outputs.argmax(1) if target is None else target
        B, C, T, H, W = clip.shape
        side = min(H, W)
        sigma = self.sigma or max(2, round(side / 10))
        step = self.step or max(1, min(7, round(sigma * 2 / 3)))
        like = at_least_float32(clip[:0])
        smooth = SmoothMasks((H, W), step, sigma, like)
        fading = Fading(model, clip, self.reference, self.blur)
        valid = model.valid_for(clip)
        if valid is None:
            valid = torch.ones(B, T, dtype=torch.bool)
        obj = Objective(model, chosen, fading, runner)
        A = len(self.areas)
        grids = torch.ones(A, B, T, *smooth.grid).to(like)
        vel = None
        core = self.core or (7, sigma | 1, sigma | 1)
        dw = self.data_weight or (1 if self.variant == "step" else 100)
        cw = self.core_weight if self.core_weight is not None else (300 if self.variant=="step" else 0)
        gr = self.growth or (_GROWTH if self.variant=="step" else 1)
        rate = self.lr * valid.sum(1) * smooth.grid[0] * smooth.grid[1] / self.normal
        if self.normal==0: rate = self.lr
        rate = torch.as_tensor(rate).view(1, -1, 1, 1, 1)
        for t in range(self.iterations):
            grids.requires_grad_()
            canvas = smooth(grids.flatten(0, 2)).unflatten(0, (A, B, T))
            mask = smooth.crop(canvas)
            g = torch.zeros_like(mask)
            costs=[]
            for a in range(A):
                seen = mask[a].detach().requires_grad_()
                rows = fading(seen * valid[..., None, None])
                cost = obj(model.forward(rows))
                g[a] = dw * gradients(cost, [seen])[0]
                costs.append(cost.detach())
            region = mask if self.area_on == "crop" else canvas
            reg = 0
            for b in range(B):
                part = region[:, b, valid[b]]
                for a, area in enumerate(self.areas):
                    if self.variant == "2d":
                        l = ranking_loss(part[a].flatten(1), area).mean()
                    else:
                        l = ranking_loss(part[a].flatten(), area)
                    reg = reg + l * self.area_weight * gr**t
                    if cw and t > self.core_after:
                        reg = reg + cw * core_loss(part[a:a+1], area, core).sum()
            if TRACE is not None: TRACE(t, mask.detach(), costs, reg)
            grad, = torch.autograd.grad([reg, mask], grids, [None, g])
            vel = grad if vel is None else self.momentum * vel + (1-self.momentum) * grad
            grids = (grids.detach() - rate * vel).clamp(0, 1)
        mask = smooth.crop(smooth(grids.flatten(0, 2))).unflatten(0, (A, B, T)) * valid[..., None, None]
        self_mask = mask
        model.numbers["area"] = mask.sum((0,2,3,4)) / valid.sum(1) / H / W / A
        return mask.mean(0)


class Fading:
    def __init__(self, model, clip, kind, blur, levels=8):
        if kind == "blur":
            self.levels = torch.stack([blurred(at_least_float32(clip), blur * (1 - l / (levels - 1)), 4) if l < levels-1 else at_least_float32(clip) for l in range(levels)])
        else:
            self.levels = torch.stack([reference(model, clip, kind), clip])

    def __call__(self, mask):
        top = len(self.levels) - 1
        place = top * mask
        low = place.detach().floor().clamp(0, top - 1)
        index = low.long()[None, :, None].expand(1, *self.levels.shape[1:])
        below, above = self.levels.gather(0, index)[0], self.levels.gather(0, index + 1)[0]
        return torch.lerp(below, above, (place - low)[:, None].expand_as(below))

class Objective:
    def __init__(self, model, chosen, fading, runner):
        self.model, self.chosen = model, chosen
        B = len(chosen)
        if model.softmax:
            K = runner.forward(fading.levels[-1]).shape[1]
            eye = torch.eye(K, dtype=torch.float64)
            s = torch.stack([model.score(eye, c.expand(K)) for c in chosen])
            self.low, high = s.aminmax(dim=1)
            self.range = torch.where(high > self.low, high - self.low, 1)
        else:
            cl = fading.levels[-1]
            s = torch.stack([model.score(runner.forward(fading(torch.full_like(cl[:, 0], l / 7))).double(), chosen) for l in range(8)])
            self.low = s[0]; self.range = (s.amax(0) - s.amin(0)).clamp(min=1e-30)
    def __call__(self, outputs):
        y = outputs.double()
        if self.model.softmax:
            p = (self.model.score(y.softmax(1), self.chosen) - self.low) / self.range
            return -p.clamp(min=1e-30).log()
        r = (self.model.score(y, self.chosen) - self.low) / self.range
        return F.softplus(-10 * (r - .5))
