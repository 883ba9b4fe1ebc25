"""Sends chunks of a file, as older senders do and over gRPC: chunks.py HOST:PORT

Prints what it was answered, as one JSON object; node/tests/sdk.rs knows what that has to be.
"""

import http.client
import json
import sys
from collections import OrderedDict

import grpc
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.proto_builder import MakeSimpleProtoClass

# Fields are numbered in this order.
LogPart = MakeSimpleProtoClass(
    OrderedDict(
        id=Field.TYPE_STRING,
        session=Field.TYPE_FIXED64,
        seq=Field.TYPE_INT64,
        payload=Field.TYPE_BYTES,
    )
)
Receipt = MakeSimpleProtoClass(
    OrderedDict(answered=Field.TYPE_UINT64, throttle_seconds=Field.TYPE_UINT32)
)
OVER_HTTP = 50
OVER_GRPC = 5000


def part(seq):
    return LogPart(id="host/log1.log", session=1763801234567, seq=seq, payload=b"%d\n" % seq)


def over_http(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"Content-Type": "application/application/octet-stream"} if body else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return [answer.status, answer.read().decode()]


def over_grpc(channel, parts):
    send = channel.stream_stream(
        "/sheaf.v1.Chunks/Send", LogPart.SerializeToString, Receipt.FromString
    )
    answered = 0
    receipts = send(iter(parts), timeout=30)
    try:
        for receipt in receipts:
            answered = receipt.answered
        return [answered, receipts.code().name]
    except grpc.RpcError as error:
        return [answered, error.code().name]


def main():
    address = sys.argv[1]
    chunks = [part(seq) for seq in range(1, OVER_HTTP + 1)]
    answers = [over_http(address, "POST", "/data", c.SerializeToString()) for c in chunks]
    channel = grpc.insecure_channel(address)
    more = [part(seq) for seq in range(OVER_HTTP + 1, OVER_HTTP + OVER_GRPC + 1)]
    refused = over_http(address, "POST", "/data", part(-1).SerializeToString())
    told = {
        "data": answers,
        "refused": refused[0],
        "stream": over_grpc(channel, more),
        "zero": over_grpc(channel, [part(0)]),
        "count": over_http(address, "GET", "/count"),
        "set": over_http(address, "PUT", "/throttle?seconds=2"),
        "read": over_http(address, "GET", "/throttle?seconds=-1"),
        "alive": over_http(address, "GET", "/"),
    }
    print(json.dumps(told))


main()
