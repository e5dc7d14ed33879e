"""The study command: methods, sweeps of their parameters and baselines, measured on many clips.

`python explain.py ckpt=PATH study=multispectral` comes to `study_command`. From the settings of a
study (`design`, `design_parts`) and its checkpoints (`networks`) come rows, one for each network,
clip and cell (`cell_runs`, kept on the disk by `journal`). From the rows alone (`results`) come the
tables, plots and conclusions (`tables`, `csv_tables`, `plots`, `claims`), which `study_files`
writes.
"""

from lightning_cam.study.study_command import run_study

__all__ = ["run_study"]
