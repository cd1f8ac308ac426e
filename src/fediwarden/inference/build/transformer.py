"""The towers of plain vision transformers as graphs, from the names their weights have in open_clip and timm; runs nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference.build.architecture import Activation, Architecture, TowerFamily
from fediwarden.inference.build.graph import FLOAT, INT64, Graph
from fediwarden.inference.build.weights import Tensors
from fediwarden.inference.manifest import ImageText

IMAGE_INPUT, IMAGE_OUTPUT = "pixel_values", "image_embeds"
TEXT_INPUT, TEXT_PLACES, TEXT_OUTPUT = "tokens", "places", "text_embeds"

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Block:
    """What the tensors of one residual block are called."""

    before: str
    attention: str  # queries, keys and values in one matrix
    attention_bias: str
    out: str
    between: str
    up: str
    down: str


def _open_clip(prefix: str) -> _Block:
    return _Block(
        f"{prefix}.ln_1",
        f"{prefix}.attn.in_proj_weight",
        f"{prefix}.attn.in_proj_bias",
        f"{prefix}.attn.out_proj",
        f"{prefix}.ln_2",
        f"{prefix}.mlp.c_fc",
        f"{prefix}.mlp.c_proj",
    )


def _timm(prefix: str) -> _Block:
    return _Block(
        f"{prefix}.norm1",
        f"{prefix}.attn.qkv.weight",
        f"{prefix}.attn.qkv.bias",
        f"{prefix}.attn.proj",
        f"{prefix}.norm2",
        f"{prefix}.mlp.fc1",
        f"{prefix}.mlp.fc2",
    )


class _Tower:
    """A graph that is being written from weights, for one width."""

    def __init__(self, graph: Graph, weights: Tensors, width: int, head: int, epsilon: float) -> None:
        if width % head:
            raise Misconfigured(
                f"the weights are {width} wide, which is no multiple of a head of {head}",
                hint="check the model's architecture with `fediwarden models show`",
            )
        self.graph, self.weights, self.width, self.head, self.epsilon = graph, weights, width, head, epsilon

    def norm(self, value: str, name: str) -> str:
        """Wide in and out."""
        weight, bias = (self.weights.read(f"{name}.{part}", self.width) for part in ("weight", "bias"))
        return self.graph.norm(value, weight, bias, self.epsilon)

    def linear(self, value: str, name: str, given: int, found: int) -> str:
        """A layer as PyTorch has it, (out, in) with a bias; narrow in and out."""
        self._hold(f"{name}.weight", found, given)
        return self.graph.linear(
            value, lambda: self.weights.read(f"{name}.weight", found, given).T, self.weights.read(f"{name}.bias", found)
        )

    def block(self, value: str, names: _Block, act: Activation, mask: Array | None = None, *, first_only: bool = False) -> str:
        """A residual block; wide in and out. With `first_only`, only the first token comes out."""
        graph, width = self.graph, self.width
        bias = self.weights.read(names.attention_bias, 3 * width).copy()
        bias[:width] *= self.head**-0.5
        normed = graph.narrow(self.norm(value, names.before))
        if first_only:  # of the last block nothing else is used: its queries and its two layers are for one token
            value, first = self.first(value), self.first(normed)
            query = graph.linear(first, self._part(names.attention, 0, 1), bias[:width])
            rest = graph.linear(normed, self._part(names.attention, 1, 3), bias[width:])
            key, found = self._slice(rest, 0), self._slice(rest, 1)
        else:
            joined = graph.linear(normed, self._part(names.attention, 0, 3), bias)
            query, key, found = (self._slice(joined, number) for number in range(3))
        seen = graph.attention(query, key, found, width // self.head, self.head, mask)
        value = graph.op("Add", value, graph.wide(self.linear(seen, names.out, width, width)))
        normed = graph.narrow(self.norm(value, names.between))
        return graph.op("Add", value, graph.wide(self.two_layers(normed, names.up, names.down, act)))

    def two_layers(self, value: str, up: str, down: str, act: Activation) -> str:
        """Narrow in and out."""
        middle, _ = self.weights.shape(f"{up}.weight", 2)
        return self.linear(self.graph.act(self.linear(value, up, self.width, middle), act), down, middle, self.width)

    def first(self, value: str) -> str:
        """The first token, as a sequence of one."""
        shape = self.graph.shape
        return self.graph.op("Slice", value, shape(0), shape(1), shape(1))

    def _slice(self, value: str, number: int) -> str:
        shape, width = self.graph.shape, self.width
        return self.graph.op("Slice", value, shape(number * width), shape((number + 1) * width), shape(2))

    def _part(self, name: str, start: int, end: int) -> Callable[[], Array]:
        """Some of queries, keys and values; the queries scaled, which saves scaling the products."""
        width = self.width
        self._hold(name, 3 * width, width)

        def make() -> Array:
            part = self.weights.read(name, 3 * width, width)[start * width : end * width].T
            if start == 0:
                part = part.copy()
                part[:, :width] *= self.head**-0.5
            return part

        return make

    def _hold(self, name: str, *shape: int) -> None:
        """Say at once that a tensor has another shape; it is read much later."""
        if self.weights.shape(name, len(shape)) != shape:
            self.weights.read(name, *shape)


def image_tower(weights: Tensors, architecture: Architecture, special: ImageText, precision: str) -> Graph:
    """The image tower: pixel_values (batch, 3, size, size) to image_embeds (batch, dimensions) of unit length, both float32.

    Raises: Misconfigured when the weights are those of another architecture, or of another size than `special` says.
    """
    graph = Graph(precision)
    size = special.image.size
    pixels = graph.narrow(graph.input(IMAGE_INPUT, FLOAT, ["batch", 3, size, size]))
    build = _clip_image if architecture.family is TowerFamily.CLIP else _siglip_image
    pooled, found = build(graph, weights, architecture, pixels, size)
    if found != special.dimensions:
        raise _unlike(special, f"their embeddings have {found} dimensions instead of {special.dimensions}")
    length = graph.op("ReduceL2", pooled, graph.shape(-1), keepdims=1)
    graph.output(graph.op("Div", pooled, length), IMAGE_OUTPUT, ["batch", special.dimensions])
    return graph


def _clip_image(graph: Graph, weights: Tensors, architecture: Architecture, pixels: str, size: int) -> tuple[str, int]:
    """Embeddings before they have unit length, wide, and their dimensions."""
    width, _, patch, _ = _four(weights, "visual.conv1.weight")
    tower = _Tower(graph, weights, width, architecture.image_head, architecture.epsilon)
    side = size // patch
    weights.shape("visual.positional_embedding", 2)
    places = weights.read("visual.positional_embedding")
    if places.shape != (side * side + 1, width):
        raise _wrong_size(size, places.shape[0] - 1, patch)
    start = (weights.read("visual.class_embedding", width) + places[0]).reshape(1, 1, width)
    patches = _patches(graph, weights, "visual.conv1", pixels, patch, side)
    patches = graph.op("Add", patches, graph.constant(places[1:].copy()))
    # one start for every picture of the batch: expanded to (batch, 1, width), whatever the batch is
    batch = graph.op("Shape", patches, start=0, end=1)
    starts = graph.op("Expand", graph.constant(start), graph.op("Concat", batch, graph.shape(1, width), axis=0))
    value = tower.norm(graph.op("Concat", starts, patches, axis=1), "visual.ln_pre")
    layers = _count(weights, "visual.transformer.resblocks.")
    for number in range(layers):
        names = _open_clip(f"visual.transformer.resblocks.{number}")
        value = tower.block(value, names, architecture.image_act, first_only=number == layers - 1)
    pooled = graph.op("Reshape", value, graph.shape(-1, width))
    normed = graph.narrow(tower.norm(pooled, "visual.ln_post"))
    _, dimensions = weights.shape("visual.proj", 2)
    weights.read("visual.proj", width, dimensions)
    return graph.wide(graph.op("MatMul", normed, graph.weights(lambda: weights.read("visual.proj")))), dimensions


def _siglip_image(graph: Graph, weights: Tensors, architecture: Architecture, pixels: str, size: int) -> tuple[str, int]:
    """Embeddings before they have unit length, wide, and their dimensions."""
    trunk = "visual.trunk"
    width, _, patch, _ = _four(weights, f"{trunk}.patch_embed.proj.weight")
    tower = _Tower(graph, weights, width, architecture.image_head, architecture.epsilon)
    side = size // patch
    weights.shape(f"{trunk}.pos_embed", 3)
    places = weights.read(f"{trunk}.pos_embed")
    if places.shape != (1, side * side, width):
        raise _wrong_size(size, places.shape[1], patch)
    value = _patches(graph, weights, f"{trunk}.patch_embed.proj", pixels, patch, side)
    value = graph.op("Add", value, graph.constant(places + weights.read(f"{trunk}.patch_embed.proj.bias", width)))
    for number in range(_count(weights, f"{trunk}.blocks.")):
        value = tower.block(value, _timm(f"{trunk}.blocks.{number}"), architecture.image_act)
    value = graph.narrow(tower.norm(value, f"{trunk}.norm"))
    pool = f"{trunk}.attn_pool"
    # what is asked for is the same for every picture
    latent = weights.read(f"{pool}.latent", 1, 1, width)[0]
    asked = latent @ weights.read(f"{pool}.q.weight", width, width).T + weights.read(f"{pool}.q.bias", width)
    query = graph.narrow(graph.constant((asked * architecture.image_head**-0.5).reshape(1, 1, width).astype(np.float32)))
    weights.read(f"{pool}.kv.weight", 2 * width, width)
    joined = graph.linear(value, lambda: weights.read(f"{pool}.kv.weight").T, weights.read(f"{pool}.kv.bias", 2 * width))
    key, found = (
        graph.op("Slice", joined, graph.shape(number * width), graph.shape((number + 1) * width), graph.shape(2))
        for number in range(2)
    )
    seen = graph.attention(query, key, found, width // architecture.image_head, architecture.image_head)
    value = graph.wide(tower.linear(seen, f"{pool}.proj", width, width))
    normed = graph.narrow(tower.norm(value, f"{pool}.norm"))
    more = graph.wide(tower.two_layers(normed, f"{pool}.mlp.fc1", f"{pool}.mlp.fc2", architecture.image_act))
    return graph.op("Reshape", graph.op("Add", value, more), graph.shape(-1, width)), width


def _patches(graph: Graph, weights: Tensors, name: str, pixels: str, patch: int, side: int) -> str:
    """The picture in patches, each a token: wide, (batch, side * side, width), without a bias."""
    width = weights.shape(f"{name}.weight", 4)[0]
    made = graph.op(
        "Conv", pixels, graph.weights(lambda: weights.read(f"{name}.weight", width, 3, patch, patch)), strides=[patch, patch]
    )
    return graph.wide(graph.op("Transpose", graph.op("Reshape", made, graph.shape(0, width, side * side)), perm=[0, 2, 1]))


def text_tower(weights: Tensors, architecture: Architecture, special: ImageText) -> Graph:
    """The text tower in fp32: the rows of the token embedding (texts, tokens, width), and where each text's embedding is
    taken (texts, 1), to text_embeds (texts, dimensions), not of unit length.

    Raises: Misconfigured when the weights are those of another architecture.
    """
    graph = Graph("fp32")
    prefix = text_prefix(weights)
    length, width = weights.shape(f"{prefix}positional_embedding", 2)
    places = weights.read(f"{prefix}positional_embedding")
    tower = _Tower(graph, weights, width, architecture.text_head, architecture.epsilon)
    tokens = graph.input(TEXT_INPUT, FLOAT, ["texts", length, width])
    taken = graph.input(TEXT_PLACES, INT64, ["texts", 1])
    causal = architecture.family is TowerFamily.CLIP
    # large instead of infinite: exp() of both is zero, and zero times infinity is no number
    mask = np.triu(np.full((length, length), -1e9, np.float32), 1) if causal else None
    value = graph.op("Add", tokens, graph.constant(places))
    for number in range(_count(weights, f"{prefix}transformer.resblocks.")):
        value = tower.block(value, _open_clip(f"{prefix}transformer.resblocks.{number}"), architecture.text_act, mask)
    pooled = tower.norm(graph.op("GatherND", value, taken, batch_dims=1), f"{prefix}ln_final")
    name = f"{prefix}text_projection"
    if name in weights:
        _, dimensions = weights.shape(name, 2)
        found = graph.linear(pooled, lambda: weights.read(name, width, dimensions))
    else:
        dimensions, _ = weights.shape(f"{name}.weight", 2)
        found = tower.linear(pooled, name, width, dimensions)
    if dimensions != special.dimensions:
        raise _unlike(special, f"their text embeddings have {dimensions} dimensions instead of {special.dimensions}")
    graph.output(found, TEXT_OUTPUT, ["texts", dimensions])
    return graph


def text_prefix(weights: Tensors) -> str:
    """What the names of the text tower begin with: "text." where open_clip keeps it apart."""
    return "text." if "text.token_embedding.weight" in weights else ""


def _four(weights: Tensors, name: str) -> tuple[int, int, int, int]:
    width, colours, patch, height = weights.shape(name, 4)
    if (colours, height) != (3, patch):
        weights.read(name, width, 3, patch, patch)  # says what is wrong
    return width, colours, patch, height


def _count(weights: Tensors, prefix: str) -> int:
    """How many blocks there are; a missing one shows when it is read."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in weights.names if name.startswith(prefix)}
    return max((int(number) for number in numbers if re.fullmatch(r"[0-9]{1,3}", number)), default=0) + 1


def _unlike(special: ImageText, what: str) -> Misconfigured:
    return Misconfigured(
        f"the weights are not those of {special.architecture}: {what}",
        hint="check the model's architecture with `fediwarden models show`",
    )


def _wrong_size(size: int, places: int, patch: int) -> Misconfigured:
    side = round(places**0.5) * patch
    return Misconfigured(
        f"the weights are for pictures of {side} pixels a side, and the model's input has {size}",
        hint="check the model's input with `fediwarden models show`",
    )
