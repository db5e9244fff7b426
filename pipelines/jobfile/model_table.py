"""The table `[model]` of a job file: the network, of all tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError, ValidatorFunctionWrapHandler, field_validator

from pipelines.jobfile.tables import LocalPath, Record, kinds_in

ClassNames = Annotated[tuple[str, ...], Field(min_length=2, max_length=256)]


class ModelTable(Record):
    """`[model]`: the network. Kintsugi chooses what you leave out from the images, and prints its choice."""

    # Of models that score:
    target: str | None = Field(
        None,
        description="What the model learns: `features` of a frozen network by place, `whole` (the same features, "
        "averaged over the image, without heat maps) or `pixels`. "
        "Default: `features`; `whole` if the images are smaller than 48 pixels and no key asks for places.",
    )
    vae: Literal["linear", "deep"] | None = Field(
        None,
        description="`linear` is fitted in closed form, in seconds. `deep` is a network that is trained. "
        "Default: `linear` on `features`, unless another key needs a deep VAE.",
    )
    experts: tuple[str, ...] | None = Field(
        None,
        description="Densities of the features that score beside the linear VAE: `place_gaussian` (a Gaussian for each "
        "place), `gaussian` (one for all places) and `memory` (the distance to the nearest remembered place). "
        'Default: `["place_gaussian", "gaussian"]`.',
    )
    backbone: str = Field(
        "efficientnet_lite0",
        description="The frozen network. `efficientnet_lite0` ships with Kintsugi. `efficientnet_lite2` is in its "
        "own package, and timm has all others. Models that colour images use it, too.",
    )
    backbone_weights: LocalPath | None = Field(
        None,
        description="File of weights for a backbone that does not ship. Default: timm downloads them.",
    )
    strides: tuple[PositiveInt, ...] | None = Field(
        None,
        description="Strides of the convolutional backbone's maps that give the features. "
        "Default: the backbone's nearest to `[4, 8, 16]`; to 16 for a deep VAE; to 32 for `whole`.",
    )
    layers: tuple[PositiveInt, ...] | None = Field(
        None,
        description="Layers of a vision transformer that give the features, counted from 1. They replace `strides`. "
        "Default: those at the middle and at three quarters of the depth; the last one for `whole`.",
    )
    standardise: bool | None = Field(
        None,
        description="Bring every image to the same brightness and contrast. "
        "Default: `true` if the images differ most in exposure.",
    )
    size: tuple[PositiveInt, PositiveInt] | PositiveInt | None = Field(
        None,
        description="Size that images are resized to: the longest side in pixels, or `[height, width]`. With `windows` "
        "it is the size of a window. Default: chosen from the images; 256 for windows.",
    )
    windows: bool | None = Field(
        None,
        description="Look at large images in overlapping windows at full resolution instead of resizing them. This "
        "needs the linear VAE. "
        "Default: `true` if resizing would shrink the images to a quarter, and `size` is not set.",
    )
    likelihood: str | None = Field(
        None,
        description="How the model describes its errors: `gaussian`, `shared_gaussian` (one scale for all places) or "
        "`laplace`; on pixels also `discretised_logistic` or `bernoulli` (black and white). "
        "Default: `gaussian`; `shared_gaussian` for `whole`.",
    )
    latent: Literal["grid", "vector"] | None = Field(
        None,
        description="Latents for each place of the image, or one vector for the whole image (pixels only). "
        'Default: `"vector"`.',
    )
    latent_channels: PositiveInt | None = Field(
        None,
        description="Latents in each cell of the grid, or in the vector. "
        "Default: 32 on features; on pixels 128 in the vector, 16 in the grid.",
    )
    width: PositiveInt | None = Field(
        None,
        description="Channels of the inner maps of a deep VAE. Default: 192 on features, 16 on pixels.",
    )
    stages: PositiveInt | None = Field(
        None,
        description="How often a deep VAE halves the resolution on the way to its latents. "
        "Default: 1 to 4, chosen from `size`.",
    )
    blocks: PositiveInt | None = Field(
        None,
        description="Residual blocks in each stage (pixels only). Default: 1.",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the inner maps that each training step leaves out (pixels only)."
    )
    levels: Literal[1, 2] = Field(
        1, description="Levels of latents of a deep VAE. With 2, a vector lies above the grid."
    )
    prior: str = Field(
        "standard",
        description="The prior p(z) of a deep VAE: `standard` normal; `mixture`, a learned mixture of Gaussians; "
        "`fitted`, a mixture that is fitted to the latents after training; `vamp`, the posteriors of learned images; "
        "`flow`, a normalising flow; `autoregressive`, the density of each latent given those before it; `none`, an "
        "autoencoder without a bound.",
    )
    components: PositiveInt | None = Field(
        None,
        description="Gaussians of the priors `mixture` and `fitted`, or learned images of `vamp`. Default: 50.",
    )
    score: Literal["places", "elbo", "complexity", "ratio", "iwae"] | None = Field(
        None,
        description="Definition of the anomaly score. `places` pools the most unusual places of all experts. `elbo` is "
        "minus the bound. `complexity` compares the likelihood with the image's own complexity (pixels only). `ratio` "
        "is the contribution of the lower of two levels. `iwae` is the importance-weighted bound. "
        "Default: `places`; `elbo` for `whole`.",
    )
    samples: PositiveInt = Field(4, description="Samples of the latent that a deep VAE draws for each score.")
    # Of both:
    classes: ClassNames | Literal["folders"] | None = Field(
        None,
        description='For `reconstruct`: `"folders"`, where each sub-folder of the training folder is a class of good '
        "images. For `segment`: names of the label values 0, 1, 2 and so on. "
        "Default: no classes; for `segment` the value 0 is background, and all above it is object.",
    )
    # Of models that restore images:
    network: Literal["S", "S+", "M"] | None = Field(
        None,
        description="Size of a network that restores or labels images: `S` suits processors, `M` graphics cards. "
        "`S+` lies between, and takes three times as long as `S`. "
        "Default: `M` where a graphics card is in use, else `S`.",
    )
    scale: Literal[2, 3, 4] | None = Field(
        None, description="How many times larger the result is (`super_resolution`). Default: 2."
    )
    damage: str | None = Field(
        None,
        description="Kind of damage to undo. `denoise` has `mixed`, `gaussian`, `poisson` and `speckle`. The others "
        "have one: `jpeg` (`dejpeg`), `bicubic` (`super_resolution`), `camera` (`photo`). "
        "Default: the first of the task.",
    )
    level: float | None = Field(
        None,
        gt=0,
        description="Train for one strength of the damage: standard deviation of the noise up to 55 of 255 "
        "(`denoise`), JPEG quality from 8 to 90 (`dejpeg`), sensor noise up to 1 (`photo`). Default: all strengths.",
    )

    @property
    def says_nothing_of_places(self) -> bool:
        """Return whether the job leaves open all keys that need features by place or a certain likelihood."""
        asked = (
            self.target,
            self.strides,
            self.layers,
            self.vae,
            self.experts,
            self.stages,
            self.latent,
            self.likelihood,
            self.size,
            self.windows,
        )
        return all(choice is None for choice in asked) and self.levels == 1 and self.score in (None, "elbo")

    @field_validator("prior")
    @classmethod
    def _prior_is_known(cls, name: str) -> str:
        if name not in (known := kinds_in("vaecore.priors")):
            msg = f"unknown prior; the priors are: {', '.join(known)}"
            raise ValueError(msg)
        return name

    @field_validator("classes", mode="wrap")
    @classmethod
    def _classes_are_told_once(cls, classes: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(classes)
        except ValidationError:
            msg = 'give "folders" (reconstruct), or from 2 to 256 names of labels (segment): ["background", "cell"]'
            raise ValueError(msg) from None

    @field_validator("size", mode="wrap")
    @classmethod
    def _size_is_told_once(cls, size: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(size)
        except ValidationError:  # pydantic has one message for each form of a size
            msg = "give the longest side or [height, width], in pixels: 256, or [256, 320]"
            raise ValueError(msg) from None
