"""The study command: methods, sweeps of their parameters and baselines, measured on many clips.

`python explain.py ckpt=PATH study=multispectral`. From a study's settings (`design`) and
checkpoints (`networks`) come rows, one for each network, clip and cell (`running`, kept by
`journal`), and from these alone the tables, plots and conclusions (`results`, `tables`, `claims`,
`plots`, `report`).
"""

from lightning_cam.study.study_command import run_study

__all__ = ["run_study"]
