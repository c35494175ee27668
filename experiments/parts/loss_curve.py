"""The loss of a run over its steps, drawn."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


def loss_curve(records: list[dict], path: Path) -> Path:
    """Training loss (and validation loss, where there is one) over steps, from the lines of a run's metrics."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, title in (("loss", "training"), ("validation_loss", "validation, moving average of weights")):
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            axes.plot(*zip(*points, strict=True), label=title, marker="." if len(points) < 30 else "")
    axes.set(xlabel="step", ylabel="weighted squared velocity error", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
