"""How each method samples best: one line a setting, over all mask families, the best of its method and calls first."""

import itertools
from collections.abc import Sequence

import numpy as np

from experiments.parts.law_curves import length_names
from experiments.parts.tables import Finding, class_name

MASKED = "LPIPS"
"""What settings of inpainting are put in order by; those of generation by the first distance there is."""


def settled(rows: list[dict]) -> Finding:
    """Of every method, its settings from best to worst, and each metric's mean over the mask families."""
    metrics = list(dict.fromkeys(name for row in rows for name in row["values"] if name.startswith(("FD", MASKED))))
    found: dict[tuple[str, str], list[dict]] = {}
    for row, name in zip(rows, length_names(rows), strict=True):
        kind = "generation" if "masks" not in row["task"] else "inpainting"
        found.setdefault((f"{kind}, {name}", _setting(row)), []).append(row)
    lines = []
    for method, group in itertools.groupby(sorted(found, key=lambda key: key[0]), key=lambda key: key[0]):
        by = {setting: [_mean(found[method, setting], metric) for metric in metrics] for _, setting in group}
        perceptual = [at for at, name in enumerate(metrics) if name.startswith(MASKED)]
        judged_by = perceptual[0] if method.startswith("inpainting") and perceptual else 0
        for setting in sorted(by, key=lambda setting: by[setting][judged_by]):
            lines.append((method, setting, *("-" if np.isnan(value) else f"{value:.4g}" for value in by[setting])))
    note = f"Means over mask families. Inpainting is in the order of {MASKED}, generation in that of the first column."
    return Finding("How each method samples best", ("method", "setting", *metrics), lines, note)


def _setting(row: dict) -> str:
    """All that was varied, in words."""
    how, method = row["how"], row["task"].get("method", {"type": "Together"})
    if class_name(method) == "RePaint":
        return f"{how['steps']} levels, {method['resamplings']} times over {method['jump_length']}"
    behind = f", known pixels at {method['share']:g} of the time" if class_name(method) == "Trailing" else ""
    guided = f", guided by the known pixels with weight {how['input_guidance']:g}" if how["input_guidance"] else ""
    return f"eta {how['eta']:g}{behind}{guided}"


def _mean(rows: Sequence[dict], metric: str) -> float:
    values = [row["values"][metric]["value"] for row in rows if metric in row["values"]]
    return float(np.mean(values)) if values else float("nan")
