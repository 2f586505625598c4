"""What the layouts of VQGAN's networks have in common.

The networks are the same everywhere; what differs is what their parts are
called, which each layout says in one `Names`.
"""

import dataclasses

from keras_vq.convert.errors import LayoutError
from keras_vq.convert.rows import Row, codebook, conv, norm
from keras_vq.convert.weight_file import WeightFile

CODES = "quantize.embedding.weight"
GROUPS = 32


@dataclasses.dataclass(frozen=True)
class Names:
    """What a program calls the parts of VQGAN's networks.

    In the texts `{level}` counts the levels from the image's own size down,
    `{back}` from the lowest up, and `{i}` the blocks of a level.

    Attributes:
        down: A level of the encoder.
        up: A level of the decoder.
        block: A residual block of a level.
        attention: The attention behind it.
        downsample: The convolution that halves.
        upsample: The convolution that doubles.
        middle: The first block at the lowest size, the attention and the
            second block, of the encoder or the decoder.
        norm_out: The last normalization of either.
        shortcut: The 1x1 convolution of a residual block.
        attention_parts: Normalization, queries, keys, values, projection.
        linear_attention: Whether the last four are linear layers.
    """

    down: str
    up: str
    block: str = "block.{i}"
    attention: str = "attn.{i}"
    downsample: str = "downsample.conv"
    upsample: str = "upsample.conv"
    middle: tuple = ("mid.block_1", "mid.attn_1", "mid.block_2")
    norm_out: str = "norm_out"
    shortcut: str = "nin_shortcut"
    attention_parts: tuple = ("norm", "q", "k", "v", "proj_out")
    linear_attention: bool = False

    def level(self, level: int, levels: int, decoder: bool = False) -> str:
        """What a level is called."""
        text = self.up if decoder else self.down
        return text.format(level=level, back=levels - 1 - level)

    def first_kernel(self, level: int) -> str:
        """The first kernel of a level of the encoder."""
        block = self.block.format(i=0)
        return f"{self.level(level, 0)}.{block}.conv1.weight"


def recognises(file: WeightFile, names: Names) -> bool:
    """Whether a file has the parts that are called so."""
    return CODES in file.shapes and names.first_kernel(0) in file.shapes


def read_arguments(
    file: WeightFile, names: Names, groups: int = GROUPS
) -> dict:
    """The arguments of a `VQGAN` that the shapes tell.

    Raises:
        LayoutError: If they are those of no such network.
    """
    levels = file.count(names.first_kernel)
    widths = [file.shape(names.first_kernel(i), 4)[0] for i in range(levels)]
    base, channels = file.shape("encoder.conv_in.weight", 4)[:2]
    first = names.level(0, levels)
    blocks = file.count(
        lambda i: f"{first}.{names.block.format(i=i)}.conv1.weight"
    )
    if any(width % base for width in widths) or base % groups:
        raise LayoutError(
            f"Expected widths of levels that are multiples of {base}, the "
            f"first, and that a multiple of {groups}. Received: {widths} in "
            f"{file.path}."
        )
    query = f"{names.attention.format(i=0)}.{names.attention_parts[1]}.weight"
    attention = [
        2**level
        for level in range(levels)
        if f"{names.level(level, levels)}.{query}" in file.shapes
    ]
    middle = f"encoder.{names.middle[1]}.{names.attention_parts[1]}.weight"
    codes, dim = file.shape(CODES, 2)
    return {
        "base_channels": base,
        "channel_multipliers": [width // base for width in widths],
        "residual_blocks": blocks,
        "attention_factors": attention,
        "middle_attention": middle in file.shapes,
        "latent_channels": file.shape("encoder.conv_out.weight", 4)[0],
        "codebook_size": codes,
        "codebook_dim": dim,
        "channels": channels,
        "groups": groups,
    }


def network_rows(arguments: dict, names: Names) -> list[Row]:
    """The rows of both networks and of the codebook."""
    codes, dim = arguments["codebook_size"], arguments["codebook_dim"]
    table = _Table(arguments, names)
    return [
        *table.encoder(),
        *codebook(CODES, "quantizer", codes, dim),
        *table.decoder(),
    ]


class _Table:
    """The rows in the order of the network, with the width so far."""

    def __init__(self, arguments, names):
        self.arguments, self.names = arguments, names
        base = arguments["base_channels"]
        self.widths = [base * m for m in arguments["channel_multipliers"]]
        self.dim = arguments["codebook_dim"]
        self.latent = arguments["latent_channels"]
        self.channels = arguments["channels"]

    def encoder(self) -> list[Row]:
        names, levels = self.names, len(self.widths)
        width = self.arguments["base_channels"]
        rows = conv(
            "encoder.conv_in", "encoder/conv_in", 3, self.channels, width
        )
        for level, outputs in enumerate(self.widths):
            name, path = names.level(level, levels), f"encoder/down_{level}"
            count = self.arguments["residual_blocks"]
            rows += self._level(name, path, level, count, width)
            width = outputs
            if level < levels - 1:
                name = f"{name}.{names.downsample}"
                rows += conv(name, f"{path}_downsample", 3, width, width)
        rows += self._middle("encoder", width)
        rows += norm(f"encoder.{names.norm_out}", "encoder/norm_out", width)
        return [
            *rows,
            *conv(
                "encoder.conv_out", "encoder/conv_out", 3, width, self.latent
            ),
            *conv("quant_conv", "encoder/quant_conv", 1, self.latent, self.dim),
        ]

    def decoder(self) -> list[Row]:
        names, levels = self.names, len(self.widths)
        width = self.widths[-1]
        path = "decoder/post_quant_conv"
        rows = [
            *conv("post_quant_conv", path, 1, self.dim, self.latent),
            *conv("decoder.conv_in", "decoder/conv_in", 3, self.latent, width),
            *self._middle("decoder", width),
        ]
        for level in reversed(range(levels)):
            name = names.level(level, levels, decoder=True)
            path = f"decoder/up_{level}"
            count = self.arguments["residual_blocks"] + 1
            rows += self._level(name, path, level, count, width)
            width = self.widths[level]
            if level:
                name = f"{name}.{names.upsample}"
                rows += conv(name, f"{path}_upsample", 3, width, width)
        rows += norm(f"decoder.{names.norm_out}", "decoder/norm_out", width)
        return rows + conv(
            "decoder.conv_out", "decoder/conv_out", 3, width, self.channels
        )

    def _level(self, name, path, level, count, inputs) -> list[Row]:
        rows, outputs = [], self.widths[level]
        for i in range(count):
            block = f"{name}.{self.names.block.format(i=i)}"
            rows += self._block(block, f"{path}_block_{i}", inputs, outputs)
            inputs = outputs
            if 2**level in self.arguments["attention_factors"]:
                rows += self._attention(
                    f"{name}.{self.names.attention.format(i=i)}",
                    f"{path}_attention_{i}",
                    outputs,
                )
        return rows

    def _middle(self, side, width) -> list[Row]:
        names = [f"{side}.{name}" for name in self.names.middle]
        rows = self._block(names[0], f"{side}/mid_block_1", width, width)
        if self.arguments["middle_attention"]:
            rows += self._attention(names[1], f"{side}/mid_attention_1", width)
        return rows + self._block(names[2], f"{side}/mid_block_2", width, width)

    def _block(self, name, path, inputs, outputs) -> list[Row]:
        rows = [
            *norm(f"{name}.norm1", f"{path}/norm_1", inputs),
            *conv(f"{name}.conv1", f"{path}/conv_1", 3, inputs, outputs),
            *norm(f"{name}.norm2", f"{path}/norm_2", outputs),
            *conv(f"{name}.conv2", f"{path}/conv_2", 3, outputs, outputs),
        ]
        if inputs != outputs:
            name = f"{name}.{self.names.shortcut}"
            rows += conv(name, f"{path}/shortcut", 1, inputs, outputs)
        return rows

    def _attention(self, name, path, width) -> list[Row]:
        first, *rest = self.names.attention_parts
        rows = norm(f"{name}.{first}", f"{path}/norm", width)
        ours = ("query", "key", "value", "projection")
        for part, theirs in zip(ours, rest, strict=True):
            rows += conv(
                f"{name}.{theirs}",
                f"{path}/{part}",
                1,
                width,
                width,
                linear=self.names.linear_attention,
            )
        return rows
