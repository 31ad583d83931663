"""Sends texts or images to a TensorFlow Serving server; does not need align_keras.

    python recipes/serving_client.py --texts "two dogs in the snow" "a red ring"
    python recipes/serving_client.py --images photos/*.jpg --signature=classify
    python recipes/serving_client.py --images photos/*.jpg --grpc

REST needs only the standard library; --grpc needs tensorflow-serving-api.
"""

import argparse
import base64
import difflib
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path


def rest_body(signature, values):
    """Returns the body of a REST request.

    Args:
        signature: name of the signature, such as ``"encode_text"``.
        values: strings, or the bytes of image files.

    Returns:
        JSON, as bytes. The bytes of an image are sent as ``{"b64": ...}``, because JSON holds only
        Unicode.
    """
    values = [
        {"b64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value
        for value in values
    ]
    return json.dumps({"signature_name": signature, "inputs": values}).encode("utf-8")


def ask_rest(server, model, signature, values, timeout=60.0):
    """Sends a REST request.

    Args:
        server: host and port; TensorFlow Serving's default port is 8501.
        model: name of the model.
        signature: name of the signature.
        values: as in ``rest_body``.
        timeout: limit for the answer, in seconds.

    Returns:
        The outputs by name, as lists. A single output has the name ``"outputs"``, because REST
        omits its own name.

    Raises:
        RuntimeError: if the server refuses the request, cannot be reached or is not TensorFlow
            Serving.
    """
    request = urllib.request.Request(
        f"http://{server}/v1/models/{model}:predict",
        data=rest_body(signature, values),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            outputs = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{server}: {error.read().decode('utf-8', 'replace')}") from error
    except OSError as error:
        raise RuntimeError(_no_answer(server, getattr(error, "reason", error))) from error
    # This happens, for example, on the gRPC port or with a proxy of another service.
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{server}: the answer is not from TensorFlow Serving") from error
    return outputs if isinstance(outputs, dict) else {"outputs": outputs}


def _no_answer(server, reason):
    reason = getattr(reason, "strerror", None) or reason
    return (
        f"no server answers at {server} ({reason}); start one with the command that export.py "
        "printed (docs/serving.md), or give another --server"
    )


def predict_request(model, signature, values, input_name):
    """Returns a gRPC request.

    Args:
        model: name of the model.
        signature: name of the signature.
        values: strings, or the bytes of image files.
        input_name: name of the signature's input, ``"captions"`` or ``"images"``.

    Returns:
        A ``PredictRequest``.
    """
    from tensorflow import make_tensor_proto
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.inputs[input_name].CopyFrom(make_tensor_proto(values, shape=[len(values)]))
    return request


def ask_grpc(server, model, signature, values, input_name, timeout=60.0):
    """Like ``ask_rest``, but over gRPC (default port 8500); returns the outputs as NumPy arrays."""
    import grpc
    from tensorflow import make_ndarray
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    # A batch of photographs exceeds gRPC's default limit of 4 MiB.
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    request = predict_request(model, signature, values, input_name)
    with grpc.insecure_channel(server, options=unlimited) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = service.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise RuntimeError(_no_answer(server, error.details())) from error
            raise RuntimeError(f"{server}: {error.details()}") from error
    return {name: make_ndarray(value) for name, value in response.outputs.items()}


def main(arguments):
    """Sends the request that the flags describe; prints one line for each text or image."""
    if arguments.texts:
        signature, input_name = arguments.signature or "encode_text", "captions"
        names = values = arguments.texts
    else:
        signature, input_name = arguments.signature or "encode_image", "images"
        names = arguments.images
        # The shell does not expand ~ after "=".
        values = [Path(os.path.expanduser(path)).read_bytes() for path in names]
    where = arguments.server, arguments.model, signature, values
    outputs = ask_grpc(*where, input_name) if arguments.grpc else ask_rest(*where)
    for row, name in enumerate(names):
        answer = {key: _plain(column[row]) for key, column in outputs.items()}
        print(json.dumps({input_name[:-1]: name, **answer}))


def _plain(value):
    """Returns one value of the answer as a type that JSON accepts."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return value.decode("utf-8") if isinstance(value, bytes) else value


def parse(arguments=None):
    """Parses the given arguments, by default those of the process."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --texts TEXT ... | --images FILE ... [--flag=VALUE]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--server",
        help="address of the server; default: localhost:8501, with --grpc localhost:8500",
    )
    parser.add_argument("--model", default="align", help="name of the model on the server")
    parser.add_argument(
        "--signature", help="encode_text, encode_image or classify; default: chosen by the input"
    )
    parser.add_argument("--grpc", action="store_true", help="use gRPC instead of REST")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--texts", nargs="+", metavar="TEXT", help="texts to send")
    what.add_argument("--images", nargs="+", metavar="FILE", help="image files to send")
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].partition("=")[0]
        flags = re.findall("--[a-z]+", parser.format_help())
        near = difflib.get_close_matches(name, flags, 1)
        parser.error(f"unknown flag {name}" + (f"; did you mean {near[0]}?" if near else ""))
    found.server = found.server or f"localhost:{8500 if found.grpc else 8501}"
    return found


if __name__ == "__main__":
    arguments = parse()
    try:
        main(arguments)
    except FileNotFoundError as error:
        sys.exit(f"serving_client.py: --images: no file {error.filename}")
    except (OSError, RuntimeError, ImportError) as error:
        sys.exit(f"serving_client.py: {error}")
