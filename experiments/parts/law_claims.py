"""What the paper says of its laws of times, and what we hope of ours, as claims about rows."""

from collections.abc import Sequence

from experiments.parts.claims import Claim
from experiments.parts.law_table import MASKS

BASELINES = ("Synchronous, RePaint", "Synchronous, Replacement")
"""What completes images by a network with one time per image."""


def generation_claims(distance: str) -> list[Claim]:
    """In terms of a Frechet distance."""
    pairs = [("AsyncPatch", "Patchwise"), ("AsyncPatch", "Perlin")]
    pairs += [("Environment", "Synchronous"), ("Environment", "AsyncPatch"), ("Environment", "Perlin")]
    return [
        Claim("generation", distance, "AsyncPatch", "Synchronous", limit=1.05),
        *(Claim("generation", distance, *pair) for pair in pairs),
    ]


def inpainting_claims(metrics: Sequence[str], baselines: Sequence[str]) -> list[Claim]:
    """Against the baselines, and of trailing and our law against AsyncPatch, in terms of distances."""
    laws = ("AsyncPatch", "AsyncPatch, Trailing", "Environment", "Environment, Trailing")
    pairs = [(law, baseline) for baseline in baselines for law in laws]
    pairs += [("AsyncPatch, Trailing", "AsyncPatch"), ("Environment", "AsyncPatch")]
    return [Claim(f"inpainting, {family}", metric, *pair) for metric in metrics for pair in pairs for family in MASKS]
