"""The page of a study: tables to sort, diagrams, claims, and clips as all methods see them."""

from lightning_cam.study.page.study_page import write_study_page

__all__ = ["write_study_page"]
