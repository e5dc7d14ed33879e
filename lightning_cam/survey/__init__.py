"""A whole data set explained: maps kept small, what all of them together tell, one page.

The work of the command is in `run`; `shards` has the format of the files, `findings` what is read
off the maps, `page` shows it.
"""

from lightning_cam.survey.shards import SurveyMaps, load

__all__ = ["SurveyMaps", "load"]
