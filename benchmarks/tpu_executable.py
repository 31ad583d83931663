"""Compiles a training step for a TPU without a TPU: the part of tpu_compile.py with libtpu."""

import gzip
import json
import os
import sys
import threading
import time
from pathlib import Path

# Without this setting, libtpu asks Google Cloud which TPU the machine has.
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
# The lock protects a TPU, and this machine has none.
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"

import hlo_bytes
from tpu_figures import total_memory

#: The last file that the compiler writes before it generates code.
_LAST_TEXT = "*.after_optimizations_after_buffer_assignment.txt"
_MEMORY_REPORT = "*.after_optimizations-memory-usage-report.txt"


def compile_step(path, topology, replicas, effort, code, text, folder):
    """Compiles the step and prints libtpu's figures as JSON.

    Args:
        path: path of the serialised HLO of one replica's step.
        topology: name of the slice, such as ``v5e:2x2``.
        replicas: number of devices of the slice that take part.
        effort: effort of the compiler to make the step faster, -1 to 1; 0 is its default.
        code: whether to generate code, which takes most of the time but changes no figure.
        text: path for the compiled HLO, gzipped.
        folder: an empty folder for the files that the compiler writes.
    """
    folder = Path(folder)
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    devices, options = compiler_options(topology, replicas, effort)
    module = read_module(path)
    start, processor = time.perf_counter(), time.process_time()

    def report(facts, generated=None):
        taken = time.perf_counter() - start, time.process_time() - processor
        facts |= dict(zip(("seconds", "cpu_seconds"), taken, strict=True))
        if "error" not in facts:
            facts |= figures(folder, text)
            facts["memory"]["code"] = generated
        print(json.dumps(facts), flush=True)

    if not code:
        threading.Thread(target=end_before_code, args=(folder, report), daemon=True).start()
    from jaxlib import _jax

    try:
        executable = devices[0].client.compile(module, _jax.DeviceList(tuple(devices)), options)
    except Exception as error:  # libtpu's own error type is private and differs between versions
        report({"error": str(error)[:20_000]})
        return
    report({}, executable.get_compiled_memory_stats().generated_code_size_in_bytes)


def compiler_options(topology, replicas, effort):
    """Returns the first devices of a slice and the options to compile for them."""
    import numpy as np
    from jax.experimental import topologies
    from jaxlib import xla_client

    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    devices = devices[:replicas]
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, 1
    places = np.array([[device.id] for device in devices], "int32")
    options.device_assignment = xla_client.DeviceAssignment.create(places)
    options.executable_build_options.exec_time_optimization_effort = effort
    return devices, options


def end_before_code(folder, report):
    """Waits until the compiler has placed every buffer, then reports and ends the process."""
    while not (texts := list(folder.glob(_LAST_TEXT))):
        time.sleep(1)
    size = -1
    while size != (size := texts[0].stat().st_size):
        time.sleep(2)
    report({})
    os._exit(0)  # the compiler cannot be interrupted


def figures(folder, text):
    """Reads FLOPs, bytes and memory from the compiler's output before code generation."""
    import jax
    from jaxlib import _hlo, _jax

    (path,) = folder.glob(_LAST_TEXT)
    hlo = path.read_text()
    with gzip.open(text, "wt") as file:
        file.write(hlo)
    client = jax.devices("cpu")[0].client
    cost = _jax.hlo_module_cost_analysis(client, _hlo.hlo_module_from_text(hlo))
    (report,) = folder.glob(_MEMORY_REPORT)
    memory = {"hbm": total_memory(report.read_text()), "arguments": hlo_bytes.argument_bytes(hlo)}
    return {
        "flops": cost["flops"],
        "bytes": hlo_bytes.total(hlo_bytes.accesses(hlo_bytes.of_any_memory(hlo))),
        "hbm_bytes": hlo_bytes.total(hlo_bytes.accesses(hlo)),
        "memory": memory,
    }


def read_module(path):
    """Reads the HLO as StableHLO and changes it to what TensorFlow compiles for a TPU."""
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
        # TensorFlow inserts these copies where it reads variables; the compiler does not know them.
        for copy in found["mhlo.copy"]:
            copy.results[0].replace_all_uses_with(copy.operands[0])
            copy.erase()
        for generator in found["stablehlo.rng_bit_generator"]:
            use_own_generator(generator)
    return module


def use_own_generator(generator):
    """Replaces Philox, which TensorFlow uses on CPUs, with the chip's own generator, as on TPUs.

    The state of the chip's generator has 128 bits, that of Philox 192. TensorFlow computes a new
    state but does not use it, so the old state can stand in for the new one.
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
