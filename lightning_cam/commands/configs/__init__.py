"""The settings that come with the package, for Hydra; yours go to `./configs` (see `search`)."""
