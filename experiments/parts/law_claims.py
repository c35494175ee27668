"""What the paper says of its laws of times, and what we hope of ours, as claims about rows."""

from collections.abc import Sequence

from experiments.parts.claims import Claim
from experiments.parts.law_table import MASKS

BASELINES = ("Synchronous, RePaint", "Synchronous, Replacement")
"""What completes images by a network with one time per image."""


OURS = ("Environment",)
"""Our laws, of the tables that have no other."""


def generation_claims(distance: str, ours: Sequence[str] = OURS) -> list[Claim]:
    """In terms of a Frechet distance."""
    pairs = [("AsyncPatch", "Patchwise"), ("AsyncPatch", "Perlin")]
    pairs += [(law, other) for law in ours for other in ("Synchronous", "AsyncPatch", "Perlin")]
    return [
        *(Claim("generation", distance, law, "Synchronous", limit=1.05) for law in ("AsyncPatch", *ours)),
        *(Claim("generation", distance, *pair) for pair in pairs),
    ]


def inpainting_claims(metrics: Sequence[str], baselines: Sequence[str], ours: Sequence[str] = OURS) -> list[Claim]:
    """Against the baselines, of trailing and guidance against neither, and of our laws against AsyncPatch, in terms of
    distances.
    """
    laws = [name for law in ("AsyncPatch", *ours) for name in (law, f"{law}, Trailing", f"{law}, guided")]
    pairs = [(law, baseline) for baseline in baselines for law in laws]
    pairs += [("AsyncPatch, Trailing", "AsyncPatch"), *((f"{law}, guided", law) for law in ("AsyncPatch", *ours))]
    pairs += [(law, "AsyncPatch") for law in ours]
    return [Claim(f"inpainting, {family}", metric, *pair) for metric in metrics for pair in pairs for family in MASKS]
