"""A web page of one run: what was trained, how the loss fell, and what the network makes. Plain HTML, no script."""

import html
import json
from pathlib import Path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { width: 100%; image-rendering: pixelated; border: 1px solid #ddd }
table { border-collapse: collapse } td { padding: .15rem 1rem .15rem 0; vertical-align: top }
pre { background: #f6f6f6; padding: 1rem; overflow: auto; font-size: 13px }
"""

CAPTIONS = {
    "generation": "Generation: every pixel falls from noise to image together.",
    "autoregression": "Autoregression: patches in raster order, each begun before the one before it is done.",
    "inpainting": "Inpainting the centre. Top: the image; middle: what was given of it; bottom: what was made.",
    "outpainting": "Outpainting around a box. Top: the image; middle: what was given of it; bottom: what was made.",
}
"""What a reader sees in the grid of each task."""


def write_page(path: Path, title: str, numbers: dict[str, str], tasks: dict[str, dict], config: object) -> Path:
    """Write the page beside the pictures that `tasks` names."""
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in numbers.items())
    sections = "".join(
        f"<h2>{html.escape(name.capitalize())}</h2><p>{html.escape(CAPTIONS.get(name, ''))}</p>"
        f'<img src="{task["grid"]}" alt="{name} samples">'
        f"<p>The first image, step by step. Top: the time field (dark is clean, light is noise); middle: the noisy "
        f"image; bottom: the estimate that the network made of it.</p>"
        f'<img src="{task["times"]}" alt="{name} time field">'
        for name, task in tasks.items()
    )
    written = html.escape(json.dumps(config, indent=2))
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><table>{rows}</table>"
        f'<h2>Loss</h2><img src="loss.png" alt="loss, and validation loss by noise time">{sections}'
        f"<h2>Config</h2><pre>{written}</pre></html>\n",
        encoding="utf-8",
    )
    return path
