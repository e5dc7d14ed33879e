"""The metrics of an epoch of training so far, as plain containers, and how they are taken up again.

Lightning keeps what was logged for an epoch in places that it makes at the first `self.log`: sums
for tensors, and references to metrics, which are parts of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

_HOW = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "metric_attribute")
_FORM = {"how", "reduce", "sync", "rank_zero_only", "value", "size"}
_REDUCE = ("mean", "sum", "min", "max")


def kept(value: Tensor) -> Tensor:
    """A copy on the CPU."""
    return value.detach().cpu().clone()


def used_metrics(module: nn.Module) -> Iterator[tuple[str, Metric]]:
    """The metrics of a network that hold anything, by their names."""
    for part in module.modules():
        if isinstance(part, MetricCollection):
            part.values()  # brings those up to date that share a state
    for name, part in module.named_modules():
        if isinstance(part, Metric) and part.update_called:
            yield name, part


def state_of(metric: Metric) -> dict[str, Any]:
    """What a metric holds."""
    state = {
        name: [kept(part) for part in value] if isinstance(value, list) else kept(value)
        for name, value in metric.metric_state.items()
    }
    return {"state": state, "updates": metric.update_count}


def set_metrics(module: nn.Module, given: Mapping[str, Any]) -> None:
    """Give the metrics of a network what they held.

    Raises:
        KeyError, TypeError, AttributeError: they are others.
    """
    parts = dict(module.named_modules())
    for name, held in given.items():
        metric, state = parts[name], held["state"]
        if not isinstance(metric, Metric) or state.keys() != metric.metric_state.keys():
            raise TypeError(f"{name} is another metric")
        for key, now in metric.metric_state.items():
            value = state[key]
            if isinstance(now, list) != isinstance(value, list):
                raise TypeError(f"{name} holds something else")
            if isinstance(value, list):
                setattr(metric, key, [part.to(metric.device) for part in value])
            else:
                setattr(metric, key, value.to(now))
        metric._update_count = int(held["updates"])


def logged_of(trainer: Trainer) -> dict[str, Any]:
    """What was logged for the epoch: Lightning's key -> how, and the sum, None for a metric."""
    return {
        key: {
            "how": {name: getattr(place.meta, name) for name in _HOW},
            "reduce": place.meta.reduce_fx.__name__,
            "sync": place.meta.sync.should,
            "rank_zero_only": place.meta.sync.rank_zero_only,
            "value": kept(place.value) if place.is_tensor else None,
            "size": int(place.cumulated_batch_size) if _is_mean(place) else 0,
        }
        for key, place in trainer.fit_loop.epoch_loop._results.items()
        if place.meta.on_epoch and not place.has_reset
    }


def checked_logged(module: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says was logged, as `logged_of` writes it.

    Raises:
        KeyError, TypeError, AttributeError: it is none.
    """
    for key, held in given.items():
        value, metric = held["value"], held["how"]["metric_attribute"]
        if metric is None:
            sound = isinstance(value, Tensor) and value.ndim == 0
        else:
            sound = value is None and isinstance(module.get_submodule(metric), Metric)
        form = held.keys() == _FORM and held["how"].keys() == set(_HOW)
        if not sound or not form or held["reduce"] not in _REDUCE or type(held["size"]) is not int:
            raise TypeError(f"{key} was not logged so")
    return dict(given)


def add_logged(trainer: Trainer, key: str, held: Mapping[str, Any]) -> None:
    """Add what was logged before to what was logged since."""
    place = trainer.fit_loop.epoch_loop._results[key]
    if not place.is_tensor:
        return
    before = held["value"].to(place.value)
    if place.meta.is_max_reduction:
        place.value = torch.maximum(before, place.value)
    elif place.meta.is_min_reduction:
        place.value = torch.minimum(before, place.value)
    else:
        place.value = before + place.value
    if _is_mean(place):
        place.cumulated_batch_size = place.cumulated_batch_size + held["size"]


def log_again(trainer: Trainer, module: nn.Module, key: str, held: Mapping[str, Any]) -> None:
    """Log what nothing has logged since."""
    results, metric = trainer.fit_loop.epoch_loop._results, held["how"]["metric_attribute"]
    of_metric = metric is not None
    value = (
        module.get_submodule(metric)
        if of_metric
        else held["value"].to(trainer.strategy.root_device)
    )
    results.log(
        **held["how"],
        value=value,
        reduce_fx=held["reduce"],
        sync_dist=held["sync"],
        sync_dist_fn=trainer.strategy.reduce,
        rank_zero_only=held["rank_zero_only"],
        batch_size=1,
    )
    if not of_metric:
        results[key].value = value
    if _is_mean(results[key]):
        results[key].cumulated_batch_size = torch.tensor(held["size"]).to(
            trainer.strategy.root_device
        )


def _is_mean(place: Any) -> bool:
    return bool(place.is_tensor and place.meta.is_mean_reduction)
