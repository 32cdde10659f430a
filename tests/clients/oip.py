"""The Open Inference Protocol by its two usual clients, against a service that is asked the same in its own way.

oip.py HOST:PORT MODEL PICTURE VERDICT: VERDICT is a file with what `paradised classify --json PICTURE` printed.
"""
import asyncio
import json
import sys

import numpy as np
import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

address, model, picture, verdict = sys.argv[1:]
file = open(picture, "rb").read()
verdict = json.load(open(verdict))
NUMBERS = ["rate_nats", "posterior_entropy_nats", "predictive_entropy_nats", "picture_p", "posterior_p", "spread_p", "rate_p",
           "entropy_p", "predictive_p", "combined_p"]


def same(get):
    """The outputs for the picture are the verdict's, to the bit."""
    for name in NUMBERS:
        assert get(name).dtype == np.float32 and get(name)[0] == np.float32(verdict[name]), name
    assert np.array_equal(get("probabilities")[0], np.float32(verdict["probabilities"]))
    assert get("class")[0] == verdict["class"]


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def by_triton():
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model) and client.is_model_ready(model, "1") and not client.is_model_ready(model, "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(model)
    image, = metadata["inputs"]
    assert image["name"] == "image" and image["datatype"] == "UINT8" and image["shape"][0] == -1
    outputs = {output["name"]: output for output in metadata["outputs"]}
    # An encoded picture.
    sent = np.array([file], dtype=np.object_)
    tensor = triton.InferInput("image", sent.shape, "BYTES")
    tensor.set_data_from_numpy(sent)
    answer = client.infer(model, [tensor], request_id="a picture")
    assert answer.get_response()["id"] == "a picture"
    same(answer.as_numpy)
    assert text(answer.as_numpy("label")[0]) == verdict["label"] and text(answer.as_numpy("decision")[0]) == verdict["decision"]
    for name, output in outputs.items():
        got = answer.as_numpy(name)
        assert list(got.shape[1:]) == output["shape"][1:], name
    # Inputs that are ready, in JSON and behind it, one by one and together.
    shape = [5] + image["shape"][1:]
    inputs = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    rates = []
    for binary in [True, False]:
        tensor = triton.InferInput("image", shape, "UINT8")
        tensor.set_data_from_numpy(inputs, binary_data=binary)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3),
                  triton.InferRequestedOutput("rate_nats", binary_data=not binary)]
        answer = client.infer(model, [tensor], outputs=wanted)
        rates.append(answer.as_numpy("rate_nats"))
        top = [text(value).split(":") for value in answer.as_numpy("probabilities")[0]]
        assert len(top) == 3 and float(top[0][0]) >= float(top[1][0]) >= float(top[2][0]) and len(top[0]) == 3, top
    for i in range(5):
        tensor = triton.InferInput("image", [1] + shape[1:], "UINT8")
        tensor.set_data_from_numpy(inputs[i:i + 1])
        rates.append(client.infer(model, [tensor]).as_numpy("rate_nats"))
    assert np.array_equal(rates[0], rates[1]) and np.array_equal(rates[0], np.concatenate(rates[2:]))
    for name, shape, why in [("nothing", [1] + shape[1:], "no model"), (model, [1, 1, 1, 1], "shape")]:
        tensor = triton.InferInput("image", shape, "UINT8")
        tensor.set_data_from_numpy(np.zeros(shape, dtype=np.uint8))
        try:
            client.infer(name, [tensor])
            raise SystemExit(f"{name} {shape} was answered")
        except triton.InferenceServerException as error:
            assert why in error.message(), error
    # The repository.
    assert [(entry["name"], entry["state"]) for entry in client.get_model_repository_index()] == [(model, "READY")]
    client.unload_model(model)
    assert not client.is_model_ready(model) and not client.is_server_ready()
    assert client.get_model_repository_index()[0]["reason"] == "unloaded"
    client.load_model(model)
    assert client.is_model_ready(model) and client.is_server_ready()


async def by_kserve():
    client, url = InferenceRESTClient(RESTConfig(protocol="v2")), f"http://{address}"
    assert await client.is_server_live(url) and await client.is_server_ready(url) and await client.is_model_ready(url, model)
    for binary in [True, False]:
        content = np.array([file], dtype=np.object_)
        tensor = InferInput("image", [1], "BYTES", parameters=None if binary else {"content_type": "base64"})
        if binary:
            tensor.set_data_from_numpy(content, binary_data=True)
        else:
            import base64
            tensor.set_data_from_numpy(np.array([base64.b64encode(file)], dtype=np.object_), binary_data=False)
        answer = await client.infer(url, InferRequest(model_name=model, infer_inputs=[tensor]), model_name=model)
        outputs = {output.name: output for output in answer.outputs}
        same(lambda name: np.asarray(outputs[name].as_numpy(), dtype=np.int32 if name == "class" else np.float32))
    try:
        await client.infer(url, InferRequest(model_name="nothing", infer_inputs=[tensor]), model_name="nothing")
        raise SystemExit("a model that is not there answered")
    except Exception as error:
        assert "no model" in str(error), error


by_triton()
asyncio.run(by_kserve())
print("both clients agree")
