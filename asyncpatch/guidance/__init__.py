"""Guidance: a denoiser made from a denoiser.

A batch shares its denoiser, and with it the regions and the maps of weights. For one each, build the guided denoiser
where there is one image, inside of a `jax.vmap` around the sampler:

    def one(key, noise_key, known, image, label):
        guided = InputGuidance(denoiser, [GuidingRegion(1.0, known)], noise_key)
        return sample(key, guided, Task(plan, known), image[None], label[None], rule)[0]

    images = jax.vmap(one)(keys, noise_keys, known, image, label)

Weights of the network are still shared, and all images go through it as one batch. Nothing can be looked at under
`jax.vmap`: a bad region, weight or sample is not refused there.
"""

from asyncpatch.guidance.classifier_free import ClassifierFree as ClassifierFree
from asyncpatch.guidance.input import InputGuidance as InputGuidance
from asyncpatch.guidance.region import GuidingRegion as GuidingRegion
