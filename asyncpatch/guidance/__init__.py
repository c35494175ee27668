"""Guidance: a denoiser made from a denoiser."""

from asyncpatch.guidance.classifier_free import ClassifierFree as ClassifierFree
from asyncpatch.guidance.input import InputGuidance as InputGuidance
from asyncpatch.guidance.region import GuidingRegion as GuidingRegion
