import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.util.Collection;
import java.util.Map;
import java.util.StringJoiner;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** Sends traces with the Java SDK. See ../README.md. */
public final class Send {
  private static final SpanContext LINKED =
      SpanContext.createFromRemoteParent(
          "0102030405060708090a0b0c0d0e0f10",
          "0102030405060708",
          TraceFlags.getSampled(),
          TraceState.getDefault());

  private static final AtomicInteger failures = new AtomicInteger();

  /** The exporter as it is, but its answers are remembered. */
  private record Watched(SpanExporter exporter) implements SpanExporter {
    @Override
    public CompletableResultCode export(Collection<SpanData> spans) {
      CompletableResultCode result = exporter.export(spans);
      result.whenComplete(() -> {
        if (!result.isSuccess()) {
          failures.incrementAndGet();
        }
      });
      return result;
    }

    @Override
    public CompletableResultCode flush() {
      return exporter.flush();
    }

    @Override
    public CompletableResultCode shutdown() {
      return exporter.shutdown();
    }
  }

  private static String send(Tracer tracer, int n) {
    boolean error = n % 5 == 0;
    Span root = tracer.spanBuilder("GET /orders/{id}").setSpanKind(SpanKind.SERVER).startSpan();
    root.setAttribute("n", n);
    root.setAttribute("text", "grüße 𝄞");
    root.setAttribute("yes", true);
    root.setAttribute("answer", -42);
    root.setAttribute("ratio", 0.25);
    root.setAttribute(AttributeKey.stringArrayKey("texts"), java.util.List.of("a", "b"));
    root.setAttribute(AttributeKey.longArrayKey("numbers"), java.util.List.of(1L, 2L, 3L));
    Context inside = Context.root().with(root);

    Span select = tracer.spanBuilder("SELECT orders").setParent(inside).setSpanKind(SpanKind.CLIENT).startSpan();
    select.addEvent("row", Attributes.of(AttributeKey.longKey("count"), 7L));
    if (error) {
      select.recordException(new IllegalStateException("deadlock"));
      select.setStatus(StatusCode.ERROR, "deadlock");
    }
    select.end();

    Span publish =
        tracer.spanBuilder("publish")
            .setParent(inside)
            .setSpanKind(SpanKind.PRODUCER)
            .addLink(LINKED, Attributes.of(AttributeKey.stringKey("why"), "batch"))
            .startSpan();
    publish.end();
    root.end();
    return String.format(
        "{\"trace_id\":\"%s\",\"error\":%b,\"spans\":{\"GET /orders/{id}\":\"%s\",\"SELECT orders\":\"%s\",\"publish\":\"%s\"}}",
        root.getSpanContext().getTraceId(),
        error,
        root.getSpanContext().getSpanId(),
        select.getSpanContext().getSpanId(),
        publish.getSpanContext().getSpanId());
  }

  public static void main(String[] arguments) {
    var sdk =
        AutoConfiguredOpenTelemetrySdk.builder()
            .addSpanExporterCustomizer((exporter, config) -> new Watched(exporter))
            .addPropertiesSupplier(() -> Map.of(
                "otel.metrics.exporter", "none",
                "otel.logs.exporter", "none",
                "otel.bsp.max.export.batch.size", "64"))
            .build()
            .getOpenTelemetrySdk();
    Tracer tracer =
        sdk.tracerBuilder("tailwater.test")
            .setInstrumentationVersion("1.2.3")
            .setSchemaUrl("https://opentelemetry.io/schemas/1.28.0")
            .build();
    var traces = new StringJoiner(",", "{\"traces\":[", "]}");
    for (int n = 0; n < Integer.parseInt(arguments[0]); n++) {
      traces.add(send(tracer, n));
    }
    boolean flushed = sdk.getSdkTracerProvider().forceFlush().join(20, TimeUnit.SECONDS).isSuccess();
    sdk.close();
    System.out.println(traces);
    System.exit(flushed && failures.get() == 0 ? 0 : 1);
  }
}
