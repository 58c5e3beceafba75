"""`python -m realesr_cli`, and the console command `realesr`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; does not return."""
    from realesr_cli.cli.main import run

    run()


if __name__ == "__main__":
    main()
