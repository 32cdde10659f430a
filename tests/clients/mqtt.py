"""MQTT by paho, as programs beside the device use it.

mqtt.py read PORT: every message as a line of JSON, until killed; comes back when the broker does.
mqtt.py send PORT TOPIC PAYLOAD RESPONSE CORRELATION: one message; PAYLOAD may be @FILE.
mqtt.py requests PORT BASE COUNT FOLDER: sends COUNT requests with the pictures of a folder, each with correlation data of its own, sends
those anew that are not answered within 2 s, and prints what came back as JSON.
"""
import json
import os
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

what, port, *rest = sys.argv[1:]


def client(name, **options):
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5, **options)
    made.reconnect_delay_set(min_delay=1, max_delay=1)
    return made


def with_answer(response, correlation):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = response
    properties.CorrelationData = correlation
    return properties


def read():
    def message(_client, _data, got):
        said = {"topic": got.topic, "retain": got.retain, "bytes": len(got.payload)}
        try:
            said["text"] = got.payload.decode()
            said["json"] = json.loads(said["text"])
        except ValueError:
            pass
        said["correlation"] = getattr(got.properties, "CorrelationData", b"").decode()
        said["content_type"] = getattr(got.properties, "ContentType", None)
        print(json.dumps(said), flush=True)

    reader = client(f"reader-{os.getpid()}")
    reader.on_connect = lambda c, *_: c.subscribe("#", qos=1)
    reader.on_message = message
    connect = Properties(PacketTypes.CONNECT)
    connect.SessionExpiryInterval = 3600
    reader.connect("127.0.0.1", int(port), clean_start=False, properties=connect)
    reader.loop_forever(retry_first_connection=True)


def send(topic, payload, response, correlation):
    sender = client(f"sender-{os.getpid()}")
    sender.connect("127.0.0.1", int(port))
    sender.loop_start()
    body = open(payload[1:], "rb").read() if payload.startswith("@") else payload
    properties = with_answer(response, correlation.encode()) if response else None
    sender.publish(topic, body, qos=1, properties=properties).wait_for_publish(20)
    sender.disconnect()


def requests(base, count, folder):
    count = int(count)
    pictures = [open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))]
    lock, waiting, answers, devices = threading.Lock(), {}, {}, {}
    answered_again = sent_again = 0
    response = f"answers/{os.getpid()}"

    def message(_client, _data, got):
        nonlocal answered_again
        key = int(got.properties.CorrelationData)
        said = json.loads(got.payload)
        with lock:
            if key in answers:
                answered_again += 1
                assert answers[key]["class"] == said["class"] and answers[key]["score"] == said["score"], key
                return
            answers[key] = said
            waiting.pop(key, None)
            devices[said["device"]] = devices.get(said["device"], 0) + 1

    sender = client(f"requester-{os.getpid()}")
    subscribed = threading.Event()
    sender.on_subscribe = lambda *_: subscribed.set()
    sender.on_message = message
    sender.max_inflight_messages_set(64)
    sender.connect("127.0.0.1", int(port))
    sender.loop_start()
    sender.subscribe(response, qos=1)
    subscribed.wait(20)

    def ask(key):
        with lock:
            waiting[key] = time.monotonic()
        properties = with_answer(response, str(key).encode())
        sender.publish(f"{base}/requests", pictures[key % len(pictures)], qos=1, properties=properties)

    began = time.monotonic()
    for key in range(count):
        while len(waiting) > 200:
            time.sleep(0.002)
            sent_again += resend(lock, waiting, ask)
        ask(key)
        if key % 100 == 0:
            print(json.dumps({"asked": key}), flush=True)
    while len(answers) < count and time.monotonic() - began < 600:
        time.sleep(0.02)
        sent_again += resend(lock, waiting, ask)
    print(json.dumps({
        "answered": len(answers), "errors": sum("error" in a for a in answers.values()), "devices": devices,
        "sent_again": sent_again, "answered_again": answered_again, "seconds": time.monotonic() - began,
        "classes": {str(k): answers[k].get("class") for k in range(min(count, len(pictures)))},
    }), flush=True)


def resend(lock, waiting, ask):
    with lock:
        late = [key for key, since in waiting.items() if time.monotonic() - since > 2]
    for key in late:
        ask(key)
    return len(late)


{"read": read, "send": send, "requests": requests}[what](*rest)
