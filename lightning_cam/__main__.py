"""`python -m lightning_cam train|explain|check`."""

from __future__ import annotations

import runpy
import sys

from lightning_cam.commands.entry import one_line_errors
from lightning_cam.errors import COMMANDS, ConfigError, UnknownNameError

_USAGE = f"python -m lightning_cam {'|'.join(COMMANDS)} [KEY=VALUE ...]"


def main() -> None:
    """Run the command that the first argument names."""
    name, *rest = sys.argv[1:] or [""]
    if name in ("--help", "-h"):
        print(f"Usage: {_USAGE}\n")
        for command, does in COMMANDS.items():
            print(f"  {command:<9} {does}")
        print("\nEach has a help of its own: python -m lightning_cam train --help")
        return
    with one_line_errors():
        if not name or "=" in name:
            raise ConfigError(f"the command is missing; type {_USAGE}")
        if name not in COMMANDS:
            raise UnknownNameError("command", name, COMMANDS)
    sys.argv[1:] = rest
    # As the main module: Lightning starts the other processes of a DDP run by its name.
    runpy.run_module(f"lightning_cam.commands.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
