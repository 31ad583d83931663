"""Asks a TensorFlow Serving server of an exported model.

A copy needs nothing of this package.

    python recipes/serving_client.py --texts "two dogs in the snow" "a red ring"
    python recipes/serving_client.py --images photos/*.jpg --signature=classify
    python recipes/serving_client.py --images photos/*.jpg --grpc

REST takes the standard library alone, --grpc takes tensorflow-serving-api.
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
    """The body of a REST request.

    Args:
        signature: name, such as ``"encode_text"``.
        values: strings, or the bytes of image files.

    Returns:
        JSON, bytes. Bytes are sent as ``{"b64": ...}``, since JSON holds Unicode alone.
    """
    values = [
        {"b64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value
        for value in values
    ]
    return json.dumps({"signature_name": signature, "inputs": values}).encode("utf-8")


def ask_rest(server, model, signature, values, timeout=60.0):
    """Sends a REST request.

    Args:
        server: host and port, 8501 by TensorFlow Serving's habit.
        model: name.
        signature: name.
        values: as of ``rest_body``.
        timeout: seconds.

    Returns:
        The outputs by name, lists; a single one is under ``"outputs"``, for REST leaves its name
        out.

    Raises:
        RuntimeError: if the server refuses, cannot be reached or is another one.
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
        raise RuntimeError(f"{server}: cannot be reached ({error})") from error
    # Such as the port of gRPC, or a proxy of something else.
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{server}: answers, but not as TensorFlow Serving's REST") from error
    return outputs if isinstance(outputs, dict) else {"outputs": outputs}


def predict_request(model, signature, values, input_name):
    """A gRPC request.

    Args:
        model: name.
        signature: name.
        values: strings, or the bytes of image files.
        input_name: of the signature's input, ``"captions"`` or ``"images"``.

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
    """As ``ask_rest``, by gRPC, port 8500 by habit: the outputs by name, NumPy arrays."""
    import grpc
    from tensorflow import make_ndarray
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    # A batch of photographs is more than the 4 MiB that gRPC allows by itself.
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    request = predict_request(model, signature, values, input_name)
    with grpc.insecure_channel(server, options=unlimited) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = service.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            raise RuntimeError(f"{server}: {error.details()}") from error
    return {name: make_ndarray(value) for name, value in response.outputs.items()}


def main(arguments):
    """Asks for what the command line says and prints a line for each text or image."""
    if arguments.texts:
        signature, input_name = arguments.signature or "encode_text", "captions"
        names = values = arguments.texts
    else:
        signature, input_name = arguments.signature or "encode_image", "images"
        names = arguments.images
        # A shell leaves ~ alone behind "=".
        values = [Path(os.path.expanduser(path)).read_bytes() for path in names]
    where = arguments.server, arguments.model, signature, values
    outputs = ask_grpc(*where, input_name) if arguments.grpc else ask_rest(*where)
    for row, name in enumerate(names):
        answer = {key: _plain(column[row]) for key, column in outputs.items()}
        print(json.dumps({input_name[:-1]: name, **answer}))


def _plain(value):
    """A cell of the answer, for JSON."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return value.decode("utf-8") if isinstance(value, bytes) else value


def parse(arguments=None):
    """The flags of the process, or those given."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --texts TEXT ... | --images FILE ... [--flag=VALUE]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", help="host:port; localhost:8501, with --grpc localhost:8500")
    parser.add_argument("--model", default="align", help="the server's name of the model")
    parser.add_argument("--signature", help="encode_text, encode_image or classify")
    parser.add_argument("--grpc", action="store_true", help="in place of REST")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--texts", nargs="+", metavar="TEXT", help="captions")
    what.add_argument("--images", nargs="+", metavar="FILE", help="image files")
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
