"""The joint forward process, predictions, and denoisers that are exact."""

from asyncpatch.process.base import AbstractDenoiser as AbstractDenoiser
from asyncpatch.process.base import Prediction as Prediction
from asyncpatch.process.base import per_channel as per_channel
from asyncpatch.process.exact import FiniteDenoiser as FiniteDenoiser
from asyncpatch.process.exact import GaussianDenoiser as GaussianDenoiser
from asyncpatch.process.forward import corrupt as corrupt
from asyncpatch.process.forward import noise_further as noise_further
from asyncpatch.process.forward import posterior as posterior
from asyncpatch.process.labels import check_labels as check_labels
from asyncpatch.process.on_schedule import OnSchedule as OnSchedule
from asyncpatch.process.windowed import Windowed as Windowed
