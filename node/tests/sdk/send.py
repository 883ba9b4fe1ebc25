"""Sends logs with the OpenTelemetry SDK: send.py grpc|http ENDPOINT

Which counts must come out stands in node/tests/sdk.rs.
"""

import logging
import sys

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource


class Failures(logging.Handler):
    """The SDK tells of a failed export in its own log alone."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def exporter(protocol, endpoint, compressed):
    if protocol == "grpc":
        from grpc import Compression as GrpcCompression

        compression = GrpcCompression.Gzip if compressed else None
        return grpc.OTLPLogExporter(endpoint=endpoint, insecure=True, compression=compression)
    compression = Compression.Gzip if compressed else Compression.NoCompression
    return http.OTLPLogExporter(endpoint=endpoint + "/v1/logs", compression=compression)


def provider(protocol, endpoint, compressed, resource):
    """One whose records all go out in one request: when it is flushed."""
    logs = LoggerProvider(resource=Resource(resource))
    logs.add_log_record_processor(
        BatchLogRecordProcessor(
            exporter(protocol, endpoint, compressed),
            schedule_delay_millis=600_000,
            max_queue_size=2048,
            max_export_batch_size=2048,
        )
    )
    return logs


def send(logger, body, attributes=None):
    logger.emit(
        LogRecord(
            timestamp=1_700_000_000_000_000_000,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=body,
            attributes=attributes,
        )
    )


def plain(protocol, endpoint):
    logs = provider(protocol, endpoint, False, {"service.name": "shop"})
    cart = logs.get_logger("cart")
    for number in range(300):
        # Each body comes three times.
        send(cart, f"order {number % 100}", {"tenant": "acme"})
    for value in (7, "7", True, 2.5, ["a", 1], {"b": 2, "a": None}, b"\x00\xff"):
        send(cart, f"a value of type {type(value).__name__}", {"tenant": value})
    for body in ("text", 5, 5.5, True, ["text", 5], {"key": {"nested": b"\x01"}}):
        # Bodies of every type, twice.
        send(cart, body, {"tenant": "bodies"})
        send(cart, body, {"tenant": "bodies"})
    send(cart, "nobody's")
    send(logs.get_logger("stock", attributes={"tenant": "scope"}), "from the scope")
    finish(logs)


def compressed(protocol, endpoint):
    logs = provider(protocol, endpoint, True, {"tenant": "resource"})
    billing = logs.get_logger("billing")
    for number in range(1000):
        send(billing, f"invoice {number}")
    send(billing, "a record's own attribute is stronger", {"tenant": "acme"})
    finish(logs)


def finish(logs):
    if not logs.force_flush():
        sys.exit("the SDK could not flush")
    logs.shutdown()


def main():
    protocol, endpoint = sys.argv[1:]
    failures = Failures()
    logging.getLogger("opentelemetry").addHandler(failures)
    plain(protocol, endpoint)
    compressed(protocol, endpoint)
    if failures.messages:
        sys.exit("\n".join(failures.messages))


main()
