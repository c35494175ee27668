"""Scripts that train, sample and reproduce. Run one as `python -m experiments.NAME --help`."""
