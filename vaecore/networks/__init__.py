"""Networks, built from plain parts: each is one file and says nothing of tasks, files or services."""

from vaecore.networks.bottleneck_vae import BottleneckVAE
from vaecore.networks.class_prior import ClassPrior
from vaecore.networks.colorizer import Colorizer
from vaecore.networks.conditional_vae import ConditionalVAE
from vaecore.networks.conv_vae import ConvVAE
from vaecore.networks.degrader import Degrader
from vaecore.networks.discriminator import PatchDiscriminator
from vaecore.networks.linear_vae import LinearVAE
from vaecore.networks.pixel_cnn import MaskedNetwork, PixelCNN
from vaecore.networks.restorer import SIZES, Restorer
from vaecore.networks.two_level_vae import TwoLevelVAE

__all__ = [
    "SIZES", "BottleneckVAE", "ClassPrior", "Colorizer", "ConditionalVAE", "ConvVAE", "Degrader", "LinearVAE",
    "MaskedNetwork", "PatchDiscriminator", "PixelCNN", "Restorer", "TwoLevelVAE",
]  # fmt: skip
