"""ONNX Runtime behind FastAPI and uvicorn."""

from fastapi import FastAPI, Request
from network import Network

app = FastAPI()
network = Network()


@app.post("/classify")
async def classify(request: Request):
    return network.answer(await request.body())


@app.get("/ready")
async def ready():
    return {}
