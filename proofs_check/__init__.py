"""Numerical checks of the statements of the theory, one file per statement."""
