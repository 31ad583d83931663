"""The client, with stand-ins that decode requests by TensorFlow Serving's protocols."""

import base64
import concurrent.futures
import http.server
import json
import runpy
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

CLIENT = runpy.run_path(str(ROOT / "recipes" / "serving_client.py"))
ask_rest, ask_grpc = CLIENT["ask_rest"], CLIENT["ask_grpc"]


def sizes_of(images):
    """The stand-ins' signature: returns the length of each string, and whether it is long."""
    sizes = tf.strings.length(images)
    return {"sizes": sizes, "valid": sizes > 3}


class RestHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["signature_name"] == "no_json":
            self.answer(200, "a page of something else")
            return
        if self.path != "/v1/models/align:predict" or body["signature_name"] != "sizes":
            self.answer(404, {"error": "no such signature"})
            return
        images = [
            base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value
            for value in body["inputs"]
        ]
        outputs = {k: v.numpy().tolist() for k, v in sizes_of(tf.constant(images)).items()}
        self.answer(200, {"outputs": outputs if len(images) > 1 else outputs["sizes"]})

    def answer(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def rest_server():
    server = http.server.HTTPServer(("127.0.0.1", 0), RestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class GrpcService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def Predict(self, request, context):  # noqa: N802
        if request.model_spec.signature_name != "sizes" or request.model_spec.name != "align":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such signature")
        response = predict_pb2.PredictResponse()
        images = tf.constant(tf.make_ndarray(request.inputs["images"]))
        for name, value in sizes_of(images).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.fixture
def grpc_server():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(GrpcService(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


BYTES = [bytes(range(256)), b"\xff\xd8", b"four"]


def test_rest_sends_bytes_and_strings(rest_server):
    found = ask_rest(rest_server, "align", "sizes", BYTES)
    assert found == {"sizes": [256, 2, 4], "valid": [True, False, True]}
    assert ask_rest(rest_server, "align", "sizes", ["größer"]) == {"outputs": [8]}


def test_grpc_sends_bytes_beyond_its_usual_limit(grpc_server):
    images = [*BYTES, bytes(5 << 20)]
    found = ask_grpc(grpc_server, "align", "sizes", images, "images")
    np.testing.assert_array_equal(found["sizes"], [256, 2, 4, 5 << 20])
    np.testing.assert_array_equal(found["valid"], [True, False, True, True])


def test_a_predict_request_holds_what_the_server_parses():
    request = CLIENT["predict_request"]("align", "encode_image", BYTES, "images")
    parsed = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (parsed.model_spec.name, parsed.model_spec.signature_name) == ("align", "encode_image")
    tensor = parsed.inputs["images"]
    assert tensor.dtype == tf.string.as_datatype_enum
    assert tf.make_ndarray(tensor).tolist() == BYTES


def test_what_the_server_says_is_reported(rest_server, grpc_server):
    with pytest.raises(RuntimeError, match="no such signature"):
        ask_rest(rest_server, "align", "other", BYTES)
    with pytest.raises(RuntimeError, match="no such signature"):
        ask_grpc(grpc_server, "align", "other", BYTES, "images")
    with pytest.raises(RuntimeError, match="the answer is not from TensorFlow Serving"):
        ask_rest(rest_server, "align", "no_json", BYTES)
    with pytest.raises(RuntimeError, match="the answer is not from TensorFlow Serving"):
        ask_rest(grpc_server, "align", "sizes", BYTES)
    with pytest.raises(RuntimeError, match="no server answers at .* \\(Connection refused\\)"):
        ask_rest("127.0.0.1:9", "align", "sizes", BYTES)


def test_a_copy_runs_with_the_standard_library_alone(rest_server, tmp_path):
    copy = tmp_path / "client.py"
    copy.write_text((ROOT / "recipes" / "serving_client.py").read_text())
    paths = [tmp_path / name for name in ("one.jpg", "two.jpg")]
    for path, content in zip(paths, BYTES, strict=False):
        path.write_bytes(content)
    command = [sys.executable, "-I", "-S", str(copy), f"--server={rest_server}"]
    command += ["--signature=sizes", "--images", *map(str, paths)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [json.loads(line) for line in printed.splitlines()] == [
        {"image": str(paths[0]), "sizes": 256, "valid": True},
        {"image": str(paths[1]), "sizes": 2, "valid": False},
    ]
