import json

import pytest
import tensorflow as tf
from ports import free_ports

from align_keras.distribution import lost_workers

HEARTBEATS = (
    "{{function_node CollectiveReduceV2_device_/job:worker/replica:0/task:0/device:CPU:0}} "
    "Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks are "
    "unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1\n"
)
RESET = (
    "{{function_node CollectiveReduceV2_device_/job:worker/replica:0/task:0/device:CPU:0}} "
    "Collective ops is aborted by: recvmsg:Connection reset by peer"
)


@pytest.fixture
def cluster(monkeypatch):
    """Addresses of three workers, on which nothing listens; this process is the first worker."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(3)]
    config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    return workers


def test_a_worker_that_is_gone_is_named_with_its_address(cluster):
    error = tf.errors.UnavailableError(None, None, HEARTBEATS)
    assert lost_workers(error) == f"worker 1 ({cluster[1]}) is gone"


def test_of_a_broken_connection_those_are_named_that_do_not_answer(cluster):
    error = tf.errors.UnavailableError(None, None, RESET)
    assert lost_workers(error) == f"workers 1 ({cluster[1]}), 2 ({cluster[2]}) are gone"


def test_other_errors_name_no_worker(cluster, monkeypatch):
    assert not lost_workers(tf.errors.InvalidArgumentError(None, None, HEARTBEATS))
    assert not lost_workers(tf.errors.InternalError(None, None, "no kernel"))
    monkeypatch.delenv("TF_CONFIG")
    assert not lost_workers(tf.errors.UnavailableError(None, None, HEARTBEATS))
