"""Run ``mi`` as ``python -m micore``, for launchers that start modules."""

from micore.cli import main

main(prog_name="mi")
