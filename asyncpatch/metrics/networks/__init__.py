"""Feature networks and LPIPS, with weights that the user gets: `weights.py` says how."""

from asyncpatch.metrics.networks.efficientnet_lite import EfficientNetLite0 as EfficientNetLite0
from asyncpatch.metrics.networks.inception import InceptionV3 as InceptionV3
from asyncpatch.metrics.networks.lpips import Lpips as Lpips
from asyncpatch.metrics.networks.vgg16 import Vgg16Features as Vgg16Features
from asyncpatch.metrics.networks.weights import read_arrays as read_arrays
