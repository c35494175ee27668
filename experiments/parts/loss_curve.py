"""The loss of a run over its steps, drawn."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from asyncpatch.train import BY_TIME


def loss_curve(records: list[dict], path: Path) -> Path:
    """Training and validation loss over steps, from the lines of a run's metrics, and the latter by noise time.

    A loss that was never measured has no line.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    parts = sorted({name for record in records for name in record if name.startswith(f"{BY_TIME}/")})
    whole = {"loss": "training", "validation_loss": "validation, moving average of weights"}
    by_time = {name: f"time {name.removeprefix(f'{BY_TIME}/')}" for name in parts}
    for axes, titles in zip(panels, (whole, by_time), strict=True):
        for name, title in titles.items():
            points = [(record["step"], record[name]) for record in records if name in record]
            if points:
                axes.plot(*zip(*points, strict=True), label=title, marker="." if len(points) < 30 else "")
        if axes.lines:
            axes.legend()
        axes.set(xlabel="step", yscale="log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("weighted squared velocity error")
    panels[1].set_title("validation by noise time", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
