"""Sends traces with the Python SDK. See ../README.md."""

import json
import os
import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

LINKED = SpanContext(
    trace_id=0x0102030405060708090A0B0C0D0E0F10,
    span_id=0x0102030405060708,
    is_remote=True,
    trace_flags=TraceFlags(1),
)


class Watched(OTLPSpanExporter):
    """The exporter as it is, but its answers are remembered."""

    failures = 0

    def export(self, spans):
        result = super().export(spans)
        self.failures += result is not SpanExportResult.SUCCESS
        return result


def hex_id(span):
    return f"{span.get_span_context().span_id:016x}"


def send(tracer, n):
    error = n % 5 == 0
    with tracer.start_as_current_span("GET /orders/{id}", kind=SpanKind.SERVER) as root:
        root.set_attributes({
            "n": n, "text": "grüße 𝄞", "yes": True, "answer": -42, "ratio": 0.25,
            "texts": ["a", "b"], "numbers": [1, 2, 3],
        })
        with tracer.start_as_current_span("SELECT orders", kind=SpanKind.CLIENT) as select:
            select.add_event("row", {"count": 7})
            if error:
                select.record_exception(RuntimeError("deadlock"))
                select.set_status(Status(StatusCode.ERROR, "deadlock"))
        link = Link(LINKED, {"why": "batch"})
        with tracer.start_as_current_span("publish", kind=SpanKind.PRODUCER, links=[link]) as publish:
            pass
    return {
        "trace_id": f"{root.get_span_context().trace_id:032x}",
        "error": error,
        "spans": {span.name: hex_id(span) for span in (root, select, publish)},
    }


def main():
    exporter = Watched()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=64))
    tracer = provider.get_tracer("tailwater.test", "1.2.3", schema_url="https://opentelemetry.io/schemas/1.28.0")
    sent = [send(tracer, n) for n in range(int(sys.argv[1]))]
    flushed = provider.force_flush(20_000)
    provider.shutdown()
    print(json.dumps({"traces": sent}))
    sys.exit(0 if flushed and exporter.failures == 0 else 1)


main()
