"""Estimates the communication of a training step: bytes, hops and seconds. No TensorFlow.

The model assumes that data travel in rings, that a collective waits for a tree of hops, and that no
communication overlaps with computation.
"""

import dataclasses
import math

BYTES = 4
MIB = 1 << 20
# Number of successive collectives in a step, without the two of each batch norm. They exchange the
# captions, the ids (3), the own logits, the weights of the gradient, the powers, the columns, the
# gradients of the captions, the gradients of the weights, and the losses.
COLLECTIVES = 11
_METRICS = 5


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a model that determine how many bytes are exchanged.

    Args:
        width: width of the embeddings.
        weights: number of trainable weights.
        norms: number of synchronised batch norms.
        channels: total number of channels of these batch norms.
    """

    width: int
    weights: int
    norms: int
    channels: int


def ring(size, replicas):
    """Returns the bytes that a replica receives while ``size`` bytes are summed over all."""
    return 2 * size * (replicas - 1) / replicas


def gathered_bytes(replicas, pairs, width, form):
    """Returns the bytes that the busiest replica receives or sends to gather the loss's inputs.

    For each pair, these are the caption's embedding, three ids (the caption's id is gathered again
    to count repeated captions) and two numbers.

    Args:
        replicas: number of replicas.
        pairs: number of pairs of each replica.
        width: width of the embeddings.
        form: ``all_gather``, a ring in which every share travels once; ``all_reduce``, the sum of
            zero-padded rows, which travel twice; or ``one device``, which receives every share and
            sends all shares to every other replica.
    """
    share = pairs * (width * BYTES + 3 * 8 + 2 * BYTES)
    if form == "all_gather":
        return (replicas - 1) * share
    if form == "all_reduce":
        return ring(replicas * share, replicas)
    return (replicas - 1) * replicas * share


def received_bytes(replicas, pairs, sizes, form="all_gather"):
    """Returns the bytes that a replica receives in one step: ``(for the loss, for the rest)``.

    For the loss, these are the bytes that ``gathered_bytes`` counts, five numbers per column, which
    are summed, and the gradient of the captions' embeddings. The rest are the summed gradients and,
    for each synchronised batch norm, two numbers per channel, one number of values, and the
    gradients of these.
    """
    summed = replicas * pairs * (5 + sizes.width) * BYTES
    rest = (sizes.weights + 4 * sizes.channels + 2 * sizes.norms + _METRICS) * BYTES
    gathered = gathered_bytes(replicas, pairs, sizes.width, form)
    return gathered + ring(summed, replicas), ring(rest, replicas)


def hops(replicas, norms):
    """Returns the number of successive hops in a step: up and down a tree per collective."""
    return (COLLECTIVES + 2 * norms) * 2 * math.log2(replicas)


def link_seconds(replicas, pairs, sizes, bandwidth, latency, form="all_gather"):
    """Returns the seconds that a step spends on communication.

    Args:
        replicas: number of replicas.
        pairs: number of pairs of each replica.
        sizes: the ``Sizes`` of the model.
        bandwidth: bandwidth into a replica, in GB/s.
        latency: latency of a hop, in microseconds.
        form: as in ``gathered_bytes``.
    """
    received = sum(received_bytes(replicas, pairs, sizes, form))
    return received / (bandwidth * 1e9) + hops(replicas, sizes.norms) * latency * 1e-6
