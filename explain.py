"""Explain clips with a trained network: `python explain.py --help`."""

from lightning_cam.commands.explain import main

if __name__ == "__main__":
    main()
