import tensorflow as tf
import tpu_step

from align_keras import distribution


def test_the_sums_of_several_replicas_are_in_the_step():
    @tf.function(jit_compile=True)
    def step(rows, ids):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            loss = tf.reduce_sum(distribution.gather_replicas(rows) ** 2)
        mean = distribution.mean_of_replicas({"loss": loss})
        return tape.gradient(loss, rows), distribution.gather_replicas(ids), mean

    with tpu_step.replicas_of_a_slice(4):
        ir = step.experimental_get_compiler_ir(tf.ones([2, 3]), tf.ones([2], tf.int64))
        hlo = ir(stage="hlo")
    assert distribution.replica_place() == (0, 1)
    sums = [line for line in hlo.splitlines() if " all-reduce(" in line]
    assert all("replica_groups={{0,1,2,3}}" in line for line in sums)
    # The shapes of rows and their gradient, of ids in two halves, and of the mean.
    for shape in ("f32[4,2,3]", "s32[4,2,2]", "f32[1]"):
        assert any(f" = {shape}" in line for line in sums), shape
    assert len(sums) == 4
    assert "replica-id" in hlo


def test_one_replica_is_left_as_it_is():
    with tpu_step.replicas_of_a_slice(1):
        assert distribution.replica_place() == (0, 1)


def test_large_variables_get_no_values():
    with tf.variable_creator_scope(tpu_step.without_values):
        small = tf.Variable([1.0, 2.0])
        large = tf.Variable(lambda: tf.ones([1 << 19]))
    assert small.numpy().tolist() == [1.0, 2.0]
    assert large.shape == [1 << 19]
    assert large.dtype == tf.float32
