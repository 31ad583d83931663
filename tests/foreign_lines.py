"""Finds lines that other libraries print; commands, notebooks and examples must not print any."""

import re

#: Beginnings of lines that TensorFlow, XLA, CUDA, absl, the hubs' clients and Python write.
_FOREIGN = re.compile(
    r"""
    [IWEF]\d{4}[ ]\d\d:\d\d:\d\d                # absl, in C++
    | [IWEF]\d{4}[ ]00:00:\d+                   # absl, before it is set up
    | \d{4}-\d\d-\d\d[ ]\d\d:\d\d:\d\d\.\d+:[ ] # TensorFlow, in C++
    | INFO:[ ](Created|Initialized)[ ]TensorFlow[ ]Lite
    | WARNING:[ ]?All[ ]log[ ]messages
    | (WARNING|INFO|ERROR):(tensorflow|absl|root|jax)
    | [^ ]*\.py:\d+:[ ]\w*Warning               # Python's warnings
    | \w*Warning:[ ]
    | .*(Input[ ]file[ ]read[ ]error|Corrupt[ ]JPEG|Premature[ ]end[ ]of|libpng[ ](warning|error))
    | .*(oneDNN|DT_INT64|cuInit|CUDA|cuDNN|cuBLAS|cuFFT|ptxas|XLA[ ]service|StreamExecutor)
    | .*(retracing|Retrying[ ](in|\()|thrown[ ]while[ ]requesting)
    | .*(Saved[ ]artifact[ ]at|Captures:|TensorSpec\()
    """,
    re.VERBOSE,
)


def foreign_lines(text):
    """Returns the lines of other libraries in printed text."""
    return [line for line in re.split(r"[\r\n]+", text) if _FOREIGN.match(line.strip())]
