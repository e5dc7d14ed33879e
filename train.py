"""Train a video network: `python train.py --help`."""

from lightning_cam.commands.train import main

if __name__ == "__main__":
    main()
