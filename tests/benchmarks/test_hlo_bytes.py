import hlo_bytes
import hlo_report
import pytest

# A short compiled module, in the form that libtpu writes.
MODULE = """HloModule step, is_scheduled=true

%fused_add (param_0.1: bf16[16,128], param_1.1: bf16[16,128]) -> bf16[16,128] {
  %param_0.1 = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(0)
  %param_1.1 = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %add.1 = bf16[16,128]{1,0:T(8,128)(2,1)} add(%param_0.1, %param_1.1)
}

%fused_lookup (param_0.2: f32[1000,128], param_1.2: s32[8]) -> f32[8,128] {
  %param_0.2 = f32[1000,128]{1,0:T(8,128)} parameter(0)
  %param_1.2 = s32[8]{0:T(128)} parameter(1)
  ROOT %gather.1 = f32[8,128]{1,0:T(8,128)} gather(%param_0.2, %param_1.2), offset_dims={1}
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %value = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %count = s32[]{:T(128)S(6)} get-tuple-element(%state), index=0
  %twice = f32[8,128]{1,0:T(8,128)} add(%value, %value), metadata={op_name="lamb/mul_1"}
  ROOT %next = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%count, %twice)
}

%until (state.1: (s32[], f32[8,128])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  ROOT %less = pred[]{:T(512)S(6)} constant(true)
}

ENTRY %main (a: bf16[16,128], table: f32[1000,128]) -> bf16[16,128] {
  %a = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(0)
  %table = f32[1000,128]{1,0:T(8,128)} parameter(1)
  %ids = s32[8]{0:T(128)} constant({...})
  %fast = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} copy(%a), metadata={op_name="x"}
  %sum = bf16[16,128]{1,0:T(8,128)(2,1)} fusion(%a, /*index=1*/%fast), kind=kLoop, \
calls=%fused_add, metadata={op_name="gradient_tape/align/image_encoder_1/block2a_bn_1/Sum"}
  %rows = f32[8,128]{1,0:T(8,128)} fusion(%table, %ids), kind=kLoop, calls=%fused_lookup
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%ids, %rows)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%until, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = bf16[16,128]{1,0:T(8,128)(2,1)} bitcast(%sum)
}
""".replace("\\\n", "")


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[16,128]{1,0}", 8_192),
        ("bf16[16,128]{1,0:T(8,128)(2,1)}", 4_096),
        ("f32[3,5]{1,0:T(8,128)}", 4_096),  # one tile
        ("f32[5,3]{0,1:T(8,128)}", 4_096),
        ("f32[200,4]{0,1:T(4,128)}", 4_096),  # lanes hold the first dimension
        ("f32[7]{0:T(128)}", 512),
        ("f32[16,128]{1,0:T(8,128)S(1)}", 0),
        ("(pred[8]{0}, s64[2]{0}, f32[]{:T(128)S(6)})", 24),
    ],
)
def test_bytes_are_those_of_whole_tiles_in_hbm(shape, size):
    assert hlo_bytes.array_bytes(shape) == size


def test_what_an_op_reads_and_writes():
    found = {one.op.name: (one.kind, one.size) for one in hlo_bytes.accesses(MODULE)}
    assert found == {
        "fast": ("copy, transpose, slice", 4_096),  # its input; fast memory holds the output
        "sum": ("elementwise", 8_192),  # one operand and the result
        "rows": ("gather", 2 * 4_096 + 512),  # eight rows of the table, not all of it
        "twice": ("elementwise", 3 * 3 * 4_096),  # three rounds
    }


def test_a_loop_without_a_known_count_runs_below_its_bound():
    text = MODULE.replace('backend_config={"known_trip_count":{"n":"3"}}', "")
    text = text.replace(
        "  ROOT %less = pred[]{:T(512)S(6)} constant(true)",
        "  %bound = s32[]{:T(128)} constant(4)\n"
        "  %index = s32[]{:T(128)} get-tuple-element(%state.1), index=0\n"
        "  ROOT %less = pred[]{:T(512)S(6)} compare(%index, %bound), direction=LT",
    )
    found = {one.op.name: one.size for one in hlo_bytes.accesses(text)}
    assert found["twice"] == 4 * 3 * 4_096


def test_parameters_of_a_fusion_stand_in_any_order():
    first = "  %param_0.2 = f32[1000,128]{1,0:T(8,128)} parameter(0)\n"
    second = "  %param_1.2 = s32[8]{0:T(128)} parameter(1)\n"
    swapped = MODULE.replace(first + second, second + first)
    assert swapped != MODULE
    assert [one.size for one in hlo_bytes.accesses(swapped)] == [
        one.size for one in hlo_bytes.accesses(MODULE)
    ]


def test_what_lies_in_fast_memory_can_be_counted_too():
    text = hlo_bytes.of_any_memory(MODULE)
    found = {one.op.name: one.size for one in hlo_bytes.accesses(text)}
    assert (found["fast"], found["sum"]) == (2 * 4_096, 3 * 4_096)


def test_without_padding_arrays_take_their_elements_bytes():
    assert hlo_bytes.array_bytes(hlo_bytes.without_padding("f32[3,5]{1,0:T(8,128)}")) == 60


def test_the_largest_array_of_a_tuple():
    assert hlo_bytes.largest_array("(f32[]{:T(128)}, bf16[2,3]{1,0:T(8,128)S(1)})") == "bf16[2,3]"


def test_a_copy_belongs_to_the_layer_beside_it():
    text = """ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%start)
  %twice = f32[8,128]{1,0:T(8,128)S(1)} add(%done, %done), metadata={op_name="lamb/mul_1"}
  %back = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%twice)
  ROOT %out = f32[8,128]{1,0:T(8,128)} copy-done(%back)
}
"""
    found = [(one.op.name, one.path, one.size) for one in hlo_bytes.accesses(text)]
    assert found == [("start", "lamb/mul_1", 4_096), ("back", "lamb/mul_1", 4_096)]


def test_an_update_in_place_moves_the_update_alone():
    text = """%f (p0: f32[1000,128], p1: f32[8,128], p2: s32[]) -> f32[1000,128] {
  %p0 = f32[1000,128]{1,0:T(8,128)} parameter(0)
  %p1 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %p2 = s32[]{:T(128)S(6)} parameter(2)
  ROOT %d = f32[1000,128]{1,0:T(8,128)} dynamic-update-slice(%p0, %p1, %p2, %p2)
}

ENTRY %main (a: f32[1000,128], b: f32[8,128], i: s32[]) -> f32[1000,128] {
  %a = f32[1000,128]{1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} parameter(1)
  %i = s32[]{:T(128)S(6)} parameter(2)
  ROOT %r = f32[1000,128]{1,0:T(8,128)} fusion(%a, %b, %i), kind=kLoop, calls=%f
}
"""
    assert [access.size for access in hlo_bytes.accesses(text)] == [2 * 4_096]


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("image_encoder_1/block2a__1/block2a_bn_1/FusedBatchNormV3", "batch norm"),
        ("image_encoder_1/block2a__1/block2a_se_reduce_1/convolution", "squeeze and excite"),
        ("image_encoder_1/block2a__1/block2a_expand_conv_1/convolution", "convolution"),
        ("text_encoder_1/transformer_layer_0_1/self_attention_layer_norm_1/add", "layer norm"),
    ],
)
def test_a_path_names_its_layer_and_pass(path, layer):
    assert hlo_report.layer_of(f"align_b3_mini_1/{path}") == f"{layer}, forward"
    assert hlo_report.layer_of(f"gradient_tape/align_b3_mini_1/{path}") == f"{layer}, backward"


def test_the_optimizer_has_one_pass():
    assert hlo_report.layer_of("lamb/AssignSubVariableOp_1") == "optimizer"
    assert hlo_report.layer_of("") == "unnamed"


def test_arguments_are_those_of_the_entry():
    assert hlo_bytes.argument_bytes(MODULE) == 4_096 + 512_000


def test_the_report_names_ops_and_layers():
    lines = "\n".join(hlo_report.report(MODULE, ops=1))
    assert "batch norm, backward" in lines
    assert "lamb/mul_1" in lines


def test_a_sliced_copy_moves_its_slice_and_joining_the_slices_nothing():
    text = """HloModule step

%part (whole: bf16[64,128]) -> bf16[16,128] {
  %whole = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %slice.1 = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} slice(%whole), slice={[0:16], [0:128]}
}

ENTRY %main (a: bf16[64,128]) -> bf16[64,128] {
  %a = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %one = ((bf16[64,128]{1,0:T(8,128)(2,1)}), bf16[16,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) \
async-start(%a), calls=%part
  %two = ((bf16[64,128]{1,0:T(8,128)(2,1)}), bf16[16,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) \
slice-start(%a), slice={[16:32], [0:128]}
  %one.1 = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} async-done(%one)
  %two.1 = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} slice-done(%two)
  ROOT %all = bf16[32,128]{1,0:T(8,128)(2,1)} custom-call(%one.1, %two.1), \
custom_call_target="ConcatBitcast"
}
""".replace("\\\n", "")
    found = {one.op.name: (one.kind, one.size) for one in hlo_bytes.accesses(text)}
    assert found == dict.fromkeys(("one", "two"), ("to or from fast memory", 4_096))
    everywhere = list(hlo_bytes.accesses(hlo_bytes.of_any_memory(text)))
    assert hlo_bytes.total(everywhere) == 4 * 4_096  # each copy reads and writes
