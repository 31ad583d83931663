"""Shows which ops and layers of a compiled step move the most bytes.

    python benchmarks/hlo_report.py RESULTS/cc3m_b3_mini-plain-16x1-v5e-libtpuVERSION.hlo.gz

The input files are those that ``tpu_compile.py`` writes beside its results. The compiler keeps only
one name for a fusion, so the bytes of a layer include those of other ops that were fused with it.
"""

import argparse
import collections
import gzip
import re

from hlo_bytes import accesses, largest_array, total, without_padding

_LAYERS = (
    ("optimizer", r"^(lamb|adam_w|sgd|adafactor)\b|^global_norm|^clip_by_global_norm"),
    ("batch norm", r"[/_]bn(_|\b)|batch_norm"),
    ("squeeze and excite", r"_se_"),
    ("drop-connect, dropout", r"drop"),
    ("depthwise convolution", r"dwconv|depthwise"),
    ("activation", r"activation|swish|silu|gelu|_act(_|\b)"),
    ("convolution", r"conv"),
    ("layer norm", r"layer_norm"),
    ("attention", r"attention"),
    ("embeddings", r"embedding"),
    ("feed-forward", r"feedforward"),
    ("residual sum", r"_add(_|\b)|residual"),
    ("projection", r"_projection"),
    ("images", r"image_encoder[^/]*/Cast"),
    ("mean over space", r"pool|image_encoder[^/]*/[^/]*mean"),
)


def layer_of(path):
    """Returns the kind of layer in an op's path, and its pass: forward, backward or update."""
    backward = "gradient_tape" in path
    names = [name for name, pattern in _LAYERS if re.search(pattern, path)]
    if not path or names[:1] == ["optimizer"]:
        return names[0] if path else "unnamed"
    return f"{names[0] if names else 'other'}, {'backward' if backward else 'forward'}"


def report(text, ops):
    """Returns lines with the bytes by kind of op and by layer, and with the largest ops."""
    found = sorted(accesses(text), key=lambda access: -access.size)
    everything = total(found)
    padding = everything - total(accesses(without_padding(text)))
    lines = [f"{everything / 1e9:.2f} GB of HBM a step, {padding / everything:.0%} padding", ""]
    for title, group in (("op", lambda one: one.kind), ("layer", lambda one: layer_of(one.path))):
        sizes = collections.Counter()
        for access in found:
            sizes[group(access)] += access.size
        lines.append(f"{'by ' + title:<36}{'MB':>10}{'share':>8}")
        lines += [
            f"{name:<36}{size / 1e6:>10,.1f}{size / everything:>8.1%}"
            for name, size in sizes.most_common()
        ]
        lines.append("")
    lines.append(f"the largest ops{'MB':>11}")
    lines += [
        f"{one.size / 1e6:>26,.1f}  {one.kind:<24}{largest_array(one.op.shape):<26}{one.path[-60:]}"
        for one in found[:ops]
    ]
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "hlo", help="the compiled step (gzipped HLO), from the folder of the results"
    )
    parser.add_argument("--ops", type=int, default=20, help="number of single ops to list")
    arguments = parser.parse_args()
    with gzip.open(arguments.hlo, "rt") as hlo:
        print("\n".join(report(hlo.read(), arguments.ops)))
