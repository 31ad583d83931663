import pytest
import tpu_figures
from tpu_figures import CHIPS, GIB, VARIANTS

CASE = {
    "experiment": "quickstart",
    "variant": "plain",
    "pairs": 16,
    "replicas": 1,
    "chip": "v5e",
    "effort": 0.0,
    "libtpu": "0.0.42",
}
MEMORY = {"arguments": 5 * GIB, "hbm": 6 * GIB, "code": GIB}
COMPILED = {
    **CASE,
    "weights": 2_000_000,
    "memory": MEMORY,
    "flops": 197e9,
    "bytes": 2e9,
    "hbm_bytes": 1.638e9,
    "seconds": 60.4,
}
# Messages of libtpu 0.0.42, and messages that users of JAX have reported.
OVERFLOW = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(39.19G) exceeds available HBM (15.75G)."
)
LATER_OVERFLOW = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.\n\nTotal hbm usage >= 20.75G:"
)


def failed(error=OVERFLOW, **changed):
    kept = {name: COMPILED[name] for name in (*CASE, "weights")}
    return {**kept, "error": error, **changed}


@pytest.mark.parametrize("name", CASE)
def test_a_result_has_a_file_for_each_case_and_version(name):
    changed = {**CASE, name: 2 if isinstance(CASE[name], int | float) else "another"}
    assert tpu_figures.key(changed) != tpu_figures.key(CASE)


def test_chips_share_a_step():
    assert tpu_figures.step_key(CASE) == tpu_figures.step_key({**CASE, "chip": "v4", "libtpu": "1"})
    assert tpu_figures.step_key(CASE) != tpu_figures.step_key({**CASE, "variant": "remat"})


def test_a_step_takes_its_buffers_and_its_program():
    assert tpu_figures.needed_memory(MEMORY) == 7 * GIB
    assert tpu_figures.needed_memory({**MEMORY, "code": None}) == 6 * GIB


def test_total_memory_is_that_of_hbm():
    report = (
        "Memory Space: default (color=0)\nTotal bytes: 48616960 (46.36MiB)\n  cumulative_size;\n"
        "Memory Space: vmem (color=1)\nTotal bytes: 34845184 (33.23MiB)\n"
    )
    assert tpu_figures.total_memory(report) == 48_616_960


def test_overflow_reads_what_the_compiler_needed():
    assert tpu_figures.overflow(OVERFLOW) == (39.19 * GIB, 15.75 * GIB)
    assert tpu_figures.overflow(LATER_OVERFLOW) == (20.5 * GIB, 15.75 * GIB)
    assert tpu_figures.overflow("Used 512.00M of 15.75G hbm") == (0.5 * GIB, 15.75 * GIB)
    assert tpu_figures.overflow("INTERNAL: Mosaic failed") is None


def test_roofline_is_by_the_published_peaks():
    assert tpu_figures.roofline("v5e", 197e12, 819e9 / 2) == (1.0, 0.5)
    assert tpu_figures.roofline("v4", 275e11, 1_228e9) == (0.1, 1.0)


@pytest.mark.parametrize(
    ("variant", "given"),
    [
        ("plain", ""),
        ("tiles", "--loss-tile-rows=8"),
        ("remat", "--rematerialize"),
        ("micro+remat", "--micro-batch-size=4 --rematerialize"),
    ],
)
def test_a_variant_is_flags(variant, given):
    assert tpu_figures.flags(variant, pairs=16) == given


def test_variants_set_what_a_run_has():
    from align_keras.runs.pretraining_settings import PretrainSettings

    for variant in VARIANTS:
        PretrainSettings().replace(**tpu_figures.settings(variant, pairs=1)).check()


def test_the_smallest_slice_with_enough_chips():
    assert tpu_figures.smallest_slice("v5e", 1) == "v5e:2x2"
    assert tpu_figures.smallest_slice("v5e", 5) == "v5e:8x8"
    assert tpu_figures.smallest_slice("v4", 1_024) == "v4:8x8x16"
    assert tpu_figures.smallest_slice("v6e", 1_024) is None


def test_what_does_not_fit_says_what_does():
    plain = failed()
    others = [failed(variant="remat"), {**COMPILED, "variant": "micro"}]
    assert tpu_figures.remedy(plain, [plain, *others]) == "--micro-batch-size=4 fits"
    # The result of another chip does not count for this one.
    elsewhere = {**COMPILED, "variant": "remat", "chip": "v4"}
    found = tpu_figures.remedy(plain, [plain, elsewhere])
    assert found.startswith("not compiled yet: --loss-tile-rows=8, --rematerialize")
    none = [failed(variant=variant) for variant in VARIANTS]
    assert "no variant fits" in tpu_figures.remedy(plain, none)


def test_what_was_compiled_for_more_memory_than_the_chip_has_does_not_fit():
    large = {**COMPILED, "memory": {**MEMORY, "hbm": CHIPS["v5e"].memory}}
    assert not tpu_figures.fits(large)
    assert "does not fit: not compiled yet" in "\n".join(tpu_figures.table([large]))


def test_the_table():
    results = [
        failed(variant="remat"),
        {**COMPILED, "chip": "v6e"},
        COMPILED,
        failed("INTERNAL: no such op\n at line 3", chip="v4"),
    ]
    lines = tpu_figures.table(results)
    assert lines[2] == "quickstart: 2.0 M weights, 16 pairs a chip, 1 chip"
    assert [line.split()[:2] for line in lines[3:]] == [
        ["v4", "plain"],
        ["v5e", "plain"],
        ["v5e", "remat"],
        ["v6e", "plain"],
    ]
    assert lines[3].endswith("not compiled: INTERNAL: no such op")
    figures = ["5,120", "1,024", "7,168", "16,384", "197.0", "2,000", "1,638", "1.00", "2.00"]
    assert lines[4].split() == ["v5e", "plain", *figures, "8,000", "60", "s"]
    assert "does not fit: 39.2 of 15.8 GiB" in lines[5]


def test_what_has_no_code_is_marked():
    (*_, line) = tpu_figures.table([{**COMPILED, "memory": {**MEMORY, "code": None}}])
    assert line.endswith("60 s, no code")


def test_less_effort_is_marked():
    (*_, line) = tpu_figures.table([{**COMPILED, "effort": -1.0}])
    assert line.split()[1] == "plain*"
