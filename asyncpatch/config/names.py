"""The names that files give to the classes of configs: one table, apart from where the code of a class lies.

A file outlives the code. Whoever moves a class changes its line in `PACKAGE`; whoever renames one keeps its old name in
`FORMER`. A class of a user's own program gets a name by `register`, in the program that writes it and in the one that
reads it.

Invariant: reading imports nothing but what `PACKAGE` names, so that a stranger's file can only build classes of this
package, and those that the opening program has registered itself.
"""

import dataclasses
import importlib
from typing import Any, TypeVar

PACKAGE = {
    # what a run is made of
    "Experiment": "asyncpatch.runs.experiment.Experiment",
    "DataConfig": "asyncpatch.runs.experiment.DataConfig",
    "DifficultyExperiment": "asyncpatch.runs.difficulty.DifficultyExperiment",
    "AutoencoderExperiment": "asyncpatch.runs.autoencoder.AutoencoderExperiment",
    "NoPerceptual": "asyncpatch.runs.perceptual.NoPerceptual",
    "LpipsOnAlexNet": "asyncpatch.runs.perceptual.LpipsOnAlexNet",
    "LpipsOnVgg16": "asyncpatch.runs.perceptual.LpipsOnVgg16",
    # trainer
    "OptimizerConfig": "asyncpatch.train.optimizers.OptimizerConfig",
    "MuonConfig": "asyncpatch.train.optimizers.MuonConfig",
    "TrainConfig": "asyncpatch.train.settings.TrainConfig",
    "Cooldown": "asyncpatch.train.settings.Cooldown",
    "RunConfig": "asyncpatch.train.settings.RunConfig",
    # networks
    "UNetConfig": "asyncpatch.nn.unet.UNetConfig",
    "LeanUNetConfig": "asyncpatch.nn.lean_unet.LeanUNetConfig",
    "SupervisedInpainterConfig": "asyncpatch.nn.inpainter.SupervisedInpainterConfig",
    "TransformerConfig": "asyncpatch.nn.transformer.TransformerConfig",
    "AutoencoderConfig": "asyncpatch.nn.autoencoder.AutoencoderConfig",
    "Stages": "asyncpatch.nn.stages.Stages",
    "DiscriminatorConfig": "asyncpatch.nn.discriminator.DiscriminatorConfig",
    # noise schedules
    "RectifiedFlow": "asyncpatch.noise_schedule.RectifiedFlow",
    "Cosine": "asyncpatch.noise_schedule.Cosine",
    "LogLinear": "asyncpatch.noise_schedule.LogLinear",
    "Truncated": "asyncpatch.noise_schedule.Truncated",
    # weightings
    "Plain": "asyncpatch.losses.weighting.Plain",
    "SiD2": "asyncpatch.losses.weighting.SiD2",
    "FisherDivergence": "asyncpatch.losses.weighting.FisherDivergence",
    "AutoencoderObjective": "asyncpatch.losses.autoencoder_objective.AutoencoderObjective",
    # laws of training times
    "Synchronous": "asyncpatch.timesteps.synchronous.Synchronous",
    "Independent": "asyncpatch.timesteps.independent.Independent",
    "Patchwise": "asyncpatch.timesteps.patchwise.Patchwise",
    "Perlin": "asyncpatch.timesteps.perlin.Perlin",
    "AsyncPatch": "asyncpatch.timesteps.asyncpatch.AsyncPatch",
    "Environment": "asyncpatch.timesteps.environment.Environment",
    "OnPath": "asyncpatch.timesteps.on_path.OnPath",
    "MeanBeta": "asyncpatch.timesteps.mean_beta.MeanBeta",
    "PatchForcing": "asyncpatch.timesteps.patch_forcing.PatchForcing",
    "Masked": "asyncpatch.timesteps.masked.Masked",
    "Regions": "asyncpatch.timesteps.regions.Regions",
    "Margins": "asyncpatch.timesteps.margins.Margins",
    # laws of paths
    "SynchronousPaths": "asyncpatch.paths.synchronous.Synchronous",
    "WindowPaths": "asyncpatch.paths.window.Window",
    "StagedPaths": "asyncpatch.paths.staged.Staged",
    "AnyOrderPaths": "asyncpatch.paths.staged.AnyOrder",
    "EnvironmentPaths": "asyncpatch.paths.environment.Environment",
    "LearnedPaths": "asyncpatch.paths.learned.Learned",
    # masks
    "OneOf": "asyncpatch.masks.base.OneOf",
    "Thin": "asyncpatch.masks.lama.Thin",
    "Wide": "asyncpatch.masks.lama.Wide",
    "Border": "asyncpatch.masks.sides.Border",
    "OfSites": "asyncpatch.masks.sites.OfSites",
    "Half": "asyncpatch.masks.sides.Half",
    "Square": "asyncpatch.masks.boxes.Square",
    "Extrema": "asyncpatch.masks.boxes.Extrema",
    "RandomBox": "asyncpatch.masks.boxes.RandomBox",
    # data
    "Digits": "asyncpatch.data.digits.Digits",
    "IdxFiles": "asyncpatch.data.idx.IdxFiles",
    "TextureCrops": "asyncpatch.data.textures.TextureCrops",
    "ImageFolder": "asyncpatch.data.image_folder.ImageFolder",
    "ArrayRecords": "asyncpatch.data.array_records.ArrayRecords",
    "Latents": "asyncpatch.data.latents.Latents",
    "LatentScale": "asyncpatch.data.latents.LatentScale",
    "Folds": "asyncpatch.data.folds.Folds",
    "PadTo": "asyncpatch.data.transforms.PadTo",
    "RandomFlip": "asyncpatch.data.transforms.RandomFlip",
    "Shrink": "asyncpatch.data.transforms.Shrink",
}
"""Name in files -> where the class lies now."""

FORMER = {
    "experiments.setup.Experiment": "Experiment",
    "experiments.setup.DataConfig": "DataConfig",
    "asyncpatch.train.settings.OptimizerConfig": "OptimizerConfig",
    "asyncpatch.train.settings.TrainConfig": "TrainConfig",
    "asyncpatch.train.settings.RunConfig": "RunConfig",
    "asyncpatch.nn.unet.UNetConfig": "UNetConfig",
    "asyncpatch.noise_schedule.RectifiedFlow": "RectifiedFlow",
    "asyncpatch.noise_schedule.Cosine": "Cosine",
    "asyncpatch.noise_schedule.LogLinear": "LogLinear",
    "asyncpatch.noise_schedule.Truncated": "Truncated",
    "asyncpatch.losses.weighting.Plain": "Plain",
    "asyncpatch.losses.weighting.SiD2": "SiD2",
    "asyncpatch.losses.weighting.FisherDivergence": "FisherDivergence",
    "asyncpatch.timesteps.synchronous.Synchronous": "Synchronous",
    "asyncpatch.timesteps.independent.Independent": "Independent",
    "asyncpatch.timesteps.patchwise.Patchwise": "Patchwise",
    "asyncpatch.timesteps.perlin.Perlin": "Perlin",
    "asyncpatch.timesteps.asyncpatch.AsyncPatch": "AsyncPatch",
    "asyncpatch.timesteps.environment.Environment": "Environment",
    "asyncpatch.timesteps.on_path.OnPath": "OnPath",
    "asyncpatch.timesteps.mean_beta.MeanBeta": "MeanBeta",
    "asyncpatch.timesteps.patch_forcing.PatchForcing": "PatchForcing",
    "asyncpatch.timesteps.masked.Masked": "Masked",
    "asyncpatch.timesteps.margins.Margins": "Margins",
    "asyncpatch.paths.synchronous.Synchronous": "SynchronousPaths",
    "asyncpatch.paths.window.Window": "WindowPaths",
    "asyncpatch.paths.staged.Staged": "StagedPaths",
    "asyncpatch.paths.staged.AnyOrder": "AnyOrderPaths",
    "asyncpatch.paths.environment.Environment": "EnvironmentPaths",
    "asyncpatch.paths.learned.Learned": "LearnedPaths",
    "asyncpatch.masks.base.OneOf": "OneOf",
    "asyncpatch.masks.lama.Thin": "Thin",
    "asyncpatch.masks.lama.Wide": "Wide",
    "asyncpatch.masks.sides.Border": "Border",
    "asyncpatch.masks.sides.Half": "Half",
    "asyncpatch.masks.boxes.Square": "Square",
    "asyncpatch.masks.boxes.Extrema": "Extrema",
    "asyncpatch.masks.boxes.RandomBox": "RandomBox",
    "asyncpatch.data.digits.Digits": "Digits",
    "asyncpatch.data.idx.IdxFiles": "IdxFiles",
    "asyncpatch.data.image_folder.ImageFolder": "ImageFolder",
    "asyncpatch.data.array_records.ArrayRecords": "ArrayRecords",
    "asyncpatch.data.folds.Folds": "Folds",
    "asyncpatch.data.transforms.PadTo": "PadTo",
    "asyncpatch.data.transforms.RandomFlip": "RandomFlip",
}
"""Names of earlier releases -> the present name. Until 0.1.0 a class was called by where it lay."""

Class = TypeVar("Class", bound=type)

_registered: dict[str, type] = {}
_former = dict(FORMER)


def register(cls: Class, name: str | None = None, former: tuple[str, ...] = ()) -> Class:
    """Give a dataclass of your own (an `eqx.Module` is one) a name in files, its own name if not given.

    Also a decorator. `former` are names that older files call it by. Registering the same class again, as a notebook
    cell does that is run twice, replaces it. Raises `ValueError` for a class that is no dataclass, and for a name that
    another class has.
    """
    name = cls.__name__ if name is None else name
    if not dataclasses.is_dataclass(cls):
        raise ValueError(f"only dataclasses can stand in a config, got {cls}; make it a frozen dataclass")
    for taken in (name, *former):
        holder = _registered.get(taken)
        other = PACKAGE.get(taken, "" if holder is None else path_of(holder))
        if other not in ("", path_of(cls)):
            raise ValueError(f"the name {taken!r} belongs to {other}; register {path_of(cls)} under another name")
    _registered[name] = cls
    _former.update(dict.fromkeys(former, name))
    return cls


def name_of(cls: type) -> str | None:
    """The name of a class in files; None if it has none."""
    for name, registered in _registered.items():
        if registered is cls:
            return name
    path = path_of(cls)
    return next((name for name, known in PACKAGE.items() if known == path), None)


def present_name(name: str) -> str:
    """What a class is called now that a file calls `name`; the same if it was never renamed."""
    return _former.get(name, name)


def class_of(name: str) -> Any | None:
    """The class that files call `name`, now or formerly; None if there is none."""
    name = present_name(name)
    if name in _registered:
        return _registered[name]
    if name not in PACKAGE:
        return None
    module, _, attribute = PACKAGE[name].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def path_of(cls: type) -> str:
    """Where the code of a class lies."""
    return f"{cls.__module__}.{cls.__qualname__}"
