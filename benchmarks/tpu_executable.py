"""Compiles a training step's HLO for a TPU without one; the part of tpu_compile.py with libtpu."""

import gzip
import json
import os
import sys
import time
from pathlib import Path

# It would ask Google Cloud which TPU this machine has.
os.environ["TPU_SKIP_MDS_QUERY"] = "1"

_MEMORY = {
    "arguments": "argument_size_in_bytes",
    "output": "output_size_in_bytes",
    "alias": "alias_size_in_bytes",
    "temporaries": "temp_size_in_bytes",
    "code": "generated_code_size_in_bytes",
}


def compile_step(path, topology, replicas, effort, text):
    """Compiles and prints, as JSON, what libtpu says of the executable.

    Args:
        path: the serialised HLO of one replica's step.
        topology: name of the slice, such as ``v5e:2x2``.
        replicas: how many of its devices take part.
        effort: -1 to 1, of the compiler to save the step's time; 0 is its default.
        text: path for the compiled HLO, gzipped.
    """
    import numpy as np
    from jax.experimental import topologies
    from jaxlib import _jax, xla_client

    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    if replicas > len(devices):
        raise ValueError(f"{topology} has {len(devices)} devices, fewer than {replicas}")
    devices = devices[:replicas]
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, 1
    places = np.array([[device.id] for device in devices], "int32")
    options.device_assignment = xla_client.DeviceAssignment.create(places)
    options.executable_build_options.exec_time_optimization_effort = effort
    module = read_module(path)
    start, processor = time.perf_counter(), time.process_time()
    try:
        client = devices[0].client
        executable = client.compile(module, _jax.DeviceList(tuple(devices)), options)
    except Exception as error:  # libtpu's own type is private, and differs between versions
        print(json.dumps({"error": str(error)[:20_000]}))
        return
    facts = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - processor}
    facts["cost"] = read_cost(executable)
    statistics = executable.get_compiled_memory_stats()
    facts["memory"] = {name: getattr(statistics, field) for name, field in _MEMORY.items()}
    with gzip.open(text, "wt") as file:
        file.write(executable.hlo_modules()[0].to_string())
    print(json.dumps(facts))


def read_cost(executable):
    """The compiler's cost dictionary, its whole-program entries."""
    cost = executable.cost_analysis()
    cost = cost[0] if isinstance(cost, list | tuple) else cost
    return {name: cost[name] for name in ("flops", "bytes accessed") if name in cost}


def read_module(path):
    """The HLO as StableHLO that the compiler takes, and as TensorFlow would lower it for a TPU."""
    from jax._src.interpreters.mlir import make_ir_context
    from jaxlib import _jax
    from jaxlib.mlir import ir

    text = _jax.mlir.hlo_to_stablehlo(Path(path).read_bytes())
    found = {"mhlo.copy": [], "stablehlo.rng_bit_generator": []}

    def visit(operation):
        found.get(operation.name, []).append(operation)
        return ir.WalkResult.ADVANCE

    with make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        module.operation.walk(visit)
        # TensorFlow leaves them where it reads variables; the compiler does not know the operation.
        for copy in found["mhlo.copy"]:
            copy.results[0].replace_all_uses_with(copy.operands[0])
            copy.erase()
        for generator in found["stablehlo.rng_bit_generator"]:
            use_own_generator(generator)
    return module


def use_own_generator(generator):
    """Makes Philox, which TensorFlow asks for on CPUs, the chip's own generator, as on TPUs.

    Its state is 128 bits; Philox has 192. TensorFlow computes with the state that comes out but
    uses nothing of it, so it may be the one that went in.
    """
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    with ir.InsertionPoint(generator):
        state = stablehlo.slice(generator.operands[0], [0], [2], [1])
        default = ir.Attribute.parse("#stablehlo<rng_algorithm DEFAULT>")
        own = stablehlo.RngBitGeneratorOp(state.type, generator.results[1].type, default, state)
    generator.results[0].replace_all_uses_with(generator.operands[0])
    generator.results[1].replace_all_uses_with(own.results[1])
    generator.operation.erase()


if __name__ == "__main__":
    sys.exit(compile_step(**json.loads(sys.argv[sys.argv.index("--case") + 1])))
