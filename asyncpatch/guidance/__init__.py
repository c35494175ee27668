"""Guidance: a denoiser made from a denoiser."""

from asyncpatch.guidance.classifier_free import ClassifierFree as ClassifierFree
