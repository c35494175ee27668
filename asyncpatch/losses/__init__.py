"""Training losses: weightings over times and the denoising loss."""

from asyncpatch.losses.denoising import denoising_errors as denoising_errors
from asyncpatch.losses.denoising import denoising_loss as denoising_loss
from asyncpatch.losses.difficulty import difficulty_errors as difficulty_errors
from asyncpatch.losses.difficulty import stated_and_measured as stated_and_measured
from asyncpatch.losses.weighting import AbstractWeighting as AbstractWeighting
from asyncpatch.losses.weighting import FisherDivergence as FisherDivergence
from asyncpatch.losses.weighting import Plain as Plain
from asyncpatch.losses.weighting import SiD2 as SiD2
