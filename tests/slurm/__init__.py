"""Trainings on a real SLURM."""
