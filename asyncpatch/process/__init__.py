"""The joint forward process, predictions, and denoisers that are exact."""

from asyncpatch.process.base import AbstractDenoiser as AbstractDenoiser
from asyncpatch.process.base import Prediction as Prediction
from asyncpatch.process.forward import corrupt as corrupt
from asyncpatch.process.forward import posterior as posterior
