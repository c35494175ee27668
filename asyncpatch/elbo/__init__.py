"""The likelihood bound of joint diffusion: random walks, their limit and density, and bounds along any path."""

from asyncpatch.elbo.bound import diffusion_nats as diffusion_nats
from asyncpatch.elbo.bound import error_rate as error_rate
from asyncpatch.elbo.density import log_density as log_density
from asyncpatch.elbo.density import token_log_weights as token_log_weights
from asyncpatch.elbo.design import AbstractDesign as AbstractDesign
from asyncpatch.elbo.design import AllTokens as AllTokens
from asyncpatch.elbo.design import Antithetic as Antithetic
from asyncpatch.elbo.design import OneToken as OneToken
from asyncpatch.elbo.design import Points as Points
from asyncpatch.elbo.design import WholePath as WholePath
from asyncpatch.elbo.ends import AbstractDecoder as AbstractDecoder
from asyncpatch.elbo.ends import Continuous as Continuous
from asyncpatch.elbo.ends import EightBit as EightBit
from asyncpatch.elbo.ends import check_schedule as check_schedule
from asyncpatch.elbo.ends import prior_nats as prior_nats
from asyncpatch.elbo.evaluate import Evaluation as Evaluation
from asyncpatch.elbo.evaluate import check_law as check_law
from asyncpatch.elbo.evaluate import evaluate as evaluate
from asyncpatch.elbo.fluid import log_auxiliary_clock as log_auxiliary_clock
from asyncpatch.elbo.fluid import log_transition_probabilities as log_transition_probabilities
from asyncpatch.elbo.fluid import physical_clock as physical_clock
from asyncpatch.elbo.fluid import trajectory as trajectory
from asyncpatch.elbo.grid import check_grid as check_grid
from asyncpatch.elbo.grid import grid_diffusion_nats as grid_diffusion_nats
from asyncpatch.elbo.walk import positions as positions
from asyncpatch.elbo.walk import random_walk as random_walk
