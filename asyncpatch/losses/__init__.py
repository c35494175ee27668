"""Training losses: weightings over times, the denoising loss, and those of an autoencoder."""

from asyncpatch.losses.autoencoder import adversarial_weight as adversarial_weight
from asyncpatch.losses.autoencoder import beside_hidden as beside_hidden
from asyncpatch.losses.autoencoder import fooling_loss as fooling_loss
from asyncpatch.losses.autoencoder import judging_loss as judging_loss
from asyncpatch.losses.autoencoder import quantisation_loss as quantisation_loss
from asyncpatch.losses.autoencoder import reconstruction_errors as reconstruction_errors
from asyncpatch.losses.autoencoder_objective import AutoencoderObjective as AutoencoderObjective
from asyncpatch.losses.denoising import denoising_errors as denoising_errors
from asyncpatch.losses.denoising import denoising_loss as denoising_loss
from asyncpatch.losses.difficulty import difficulty_errors as difficulty_errors
from asyncpatch.losses.difficulty import stated_and_measured as stated_and_measured
from asyncpatch.losses.weighting import AbstractWeighting as AbstractWeighting
from asyncpatch.losses.weighting import FisherDivergence as FisherDivergence
from asyncpatch.losses.weighting import Plain as Plain
from asyncpatch.losses.weighting import SiD2 as SiD2
