"""Counts the exchanges of a training step: bytes, hops, seconds. No TensorFlow.

Assumed: bytes go round in rings, a collective waits for a tree of hops, and nothing overlaps.
"""

import dataclasses
import math

BYTES = 4
MIB = 1 << 20
# Gathers and sums of a step one after another, besides batch norm's five a layer: captions, two of
# ids, own logits, weights of the gradient, powers, columns, captions' gradient, gradients, losses.
COLLECTIVES = 10
_METRICS = 5


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a model that decide how much is exchanged.

    Args:
        width: width of the embeddings.
        weights: trainable numbers.
        norms: synchronised batch norms.
        channels: channels of all of them.
    """

    width: int
    weights: int
    norms: int
    channels: int


def ring(size, replicas):
    """Bytes that a replica receives while ``size`` bytes are summed over all."""
    return 2 * size * (replicas - 1) / replicas


def gathered_bytes(replicas, pairs, width, form):
    """Bytes that the busiest replica receives or sends to gather the loss's inputs.

    Of a pair these are the caption's embedding, two ids and two numbers.

    Args:
        replicas: how many there are.
        pairs: pairs of each.
        width: width of the embeddings.
        form: ``all_gather``, a ring that every share goes round once; ``all_reduce``, the sum of
            zero-padded rows, which go round twice; or ``one device``, which receives every share
            and sends all of them to every other replica.
    """
    share = pairs * (width * BYTES + 2 * 8 + 2 * BYTES)
    if form == "all_gather":
        return (replicas - 1) * share
    if form == "all_reduce":
        return ring(replicas * share, replicas)
    return (replicas - 1) * replicas * share


def received_bytes(replicas, pairs, sizes, form="all_gather"):
    """Bytes that a replica receives in one step: ``(for the loss, for the rest)``.

    For the loss: what ``gathered_bytes`` counts, five numbers a column that are summed, and the
    gradient of the captions' embeddings. Summed beside: the gradients, and of each synchronised
    batch norm three numbers a channel and the gradients of two.
    """
    summed = replicas * pairs * (5 + sizes.width) * BYTES
    rest = (sizes.weights + 5 * sizes.channels + _METRICS) * BYTES
    gathered = gathered_bytes(replicas, pairs, sizes.width, form)
    return gathered + ring(summed, replicas), ring(rest, replicas)


def hops(replicas, norms):
    """Hops that a step waits for, one after another: there and back in a tree, a collective."""
    return (COLLECTIVES + 5 * norms) * 2 * math.log2(replicas)


def link_seconds(replicas, pairs, sizes, bandwidth, latency, form="all_gather"):
    """Seconds of a step's exchanges.

    Args:
        replicas: how many there are.
        pairs: pairs of each.
        sizes: the model's ``Sizes``.
        bandwidth: GB/s into a replica.
        latency: microseconds a hop.
        form: as in ``gathered_bytes``.
    """
    received = sum(received_bytes(replicas, pairs, sizes, form))
    return received / (bandwidth * 1e9) + hops(replicas, sizes.norms) * latency * 1e-6
