"""The autoencoder between pixels and latents: convolutions only, no attention, no quantisation convolutions.

Parameter names are those of `vae/`. Latents are normalised per channel with the mean and deviation in the config; the
scalar `scaling_factor` of the released file is used by nothing.
"""

from __future__ import annotations

import itertools

from sampan.frameworks import nn, ops
from sampan.models.config import VAEConfig
from sampan.models.layers import Array

_EPS = 1e-6


class ResNet(nn.Module):
    """Two convolutions with group norms and a skip, projected where the width changes."""

    def __init__(self, channels_in: int, channels_out: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps=_EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out, eps=_EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Array) -> Array:
        h = self.conv1(ops.silu(self.norm1(x)))
        h = self.conv2(ops.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Resampler(nn.Module):
    def __init__(self, channels: int, down: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if down else nn.Conv2d(channels, channels, 3, padding=1)


class DownBlock(nn.Module):
    """ResNets, then a stride-2 convolution padded on the right and below only."""

    def __init__(self, channels_in: int, channels_out: int, layers: int, groups: int, last: bool):
        super().__init__()
        widths = [channels_in] + [channels_out] * layers
        self.resnets = nn.ModuleList([ResNet(a, b, groups) for a, b in itertools.pairwise(widths)])
        self.downsamplers = None if last else nn.ModuleList([_Resampler(channels_out, down=True)])

    def forward(self, x: Array) -> Array:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsamplers is None else self.downsamplers[0].conv(ops.pad_right_bottom(x))


class UpBlock(nn.Module):
    """ResNets, then nearest upsampling and a convolution."""

    def __init__(self, channels_in: int, channels_out: int, layers: int, groups: int, last: bool):
        super().__init__()
        widths = [channels_in] + [channels_out] * layers
        self.resnets = nn.ModuleList([ResNet(a, b, groups) for a, b in itertools.pairwise(widths)])
        self.upsamplers = None if last else nn.ModuleList([_Resampler(channels_out, down=False)])

    def forward(self, x: Array) -> Array:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsamplers is None else self.upsamplers[0].conv(ops.upsample_nearest(x, 2))


class MidBlock(nn.Module):
    """Two ResNets at the narrowest point."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList([ResNet(channels, channels, groups) for _ in range(2)])

    def forward(self, x: Array) -> Array:
        return self.resnets[1](self.resnets[0](x))


class VAEEncoder(nn.Module):
    """Pixels to mean and log-variance of the latent."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(a, b, config.layers_per_block, groups, last=i == len(widths) - 1)
                for i, (a, b) in enumerate(pairs)
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, image: Array) -> tuple[Array, Array]:
        """Return mean and log-variance (batch, latent_channels, h, w) of images (batch, 3, H, W) in [-1, 1]."""
        x = self.conv_in(image)
        for block in self.down_blocks:
            x = block(x)
        x = self.conv_out(ops.silu(self.conv_norm_out(self.mid_block(x))))
        mean, log_variance = ops.chunk(x, 2, 1)
        return mean, ops.clip(log_variance, -30.0, 20.0)


class VAEDecoder(nn.Module):
    """Latent to pixels."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(a, b, config.layers_per_block + 1, groups, last=i == len(widths) - 1)
                for i, (a, b) in enumerate(pairs)
            ]
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, latent: Array) -> Array:
        """Return images (batch, 3, H, W) of un-normalised latents (batch, latent_channels, h, w)."""
        x = self.mid_block(self.conv_in(latent))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """Encoder and decoder. `encode` and `decode` speak normalised latents, as the decoder transformer does."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.encoder = VAEEncoder(config)
        self.decoder = VAEDecoder(config)

    def forward(self, image: Array, noise: Array) -> tuple[Array, Array, Array]:
        """Return reconstruction, mean and log-variance, with the latent sampled by `noise`: what training needs."""
        mean, log_variance = self.encoder(image)
        return self.decoder(mean + ops.exp(0.5 * log_variance) * noise), mean, log_variance

    def encode(self, image: Array, latents_mean: Array, latents_std: Array) -> Array:
        """Return the normalised mode of the latent; mean and std are (1, latent_channels, 1, 1)."""
        return (self.encoder(image)[0] - latents_mean) / latents_std

    def decode(self, latent: Array, latents_mean: Array, latents_std: Array) -> Array:
        """Return the image in about [-1, 1] of a normalised latent."""
        return self.decoder(latent * latents_std + latents_mean)
