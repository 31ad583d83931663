import threading

import pytest

from align_keras.preprocessing.double_buffer import prepared_batches


def test_items_come_in_order_with_what_was_prepared():
    batches = list(prepared_batches(range(7), lambda item: item * item, 3))
    assert batches == [[(0, 0), (1, 1), (2, 4)], [(3, 9), (4, 16), (5, 25)], [(6, 36)]]
    assert list(prepared_batches([], str, 3)) == []


def test_the_next_batch_is_prepared_while_one_is_used():
    prepared = {item: threading.Event() for item in range(6)}
    read = []

    def items():
        for item in range(6):
            read.append(item)
            yield item

    batches = prepared_batches(items(), lambda item: prepared[item].set(), 2)
    next(batches)
    assert prepared[3].wait(10)
    # At most two batches are in memory.
    assert read == [0, 1, 2, 3]
    assert len(list(batches)) == 2


def test_a_fault_comes_with_its_own_batch():
    def prepare(item):
        if item == 3:
            raise ValueError("three")
        return item

    batches = prepared_batches(range(6), prepare, 2)
    assert next(batches) == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="three"):
        next(batches)


def test_it_may_end_in_a_thread_of_its_own():
    left, ended = threading.Event(), []

    def prepare(item):
        if item == 1:
            left.wait(10)
            batches.close()  # as Python's garbage collector does after an error in the caller
            ended.append(item)

    batches = prepared_batches(range(2), prepare, 1)
    next(batches)
    left.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(10)
    assert ended == [1]
