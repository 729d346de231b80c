// Sends traces with the Node.js SDK. See ../README.md.

const { context, trace, SpanKind, SpanStatusCode, TraceFlags } = require('@opentelemetry/api');
const { defaultResource, detectResources, envDetector } = require('@opentelemetry/resources');
const { NodeTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-node');

const PACKAGES = {
  grpc: '@opentelemetry/exporter-trace-otlp-grpc',
  'http/protobuf': '@opentelemetry/exporter-trace-otlp-proto',
  'http/json': '@opentelemetry/exporter-trace-otlp-http',
};
const { OTLPTraceExporter } = require(PACKAGES[process.env.OTEL_EXPORTER_OTLP_PROTOCOL]);

const LINKED = {
  traceId: '0102030405060708090a0b0c0d0e0f10',
  spanId: '0102030405060708',
  traceFlags: TraceFlags.SAMPLED,
  isRemote: true,
};

let failures = 0;

// The exporter as it is, but its answers are remembered.
class Watched extends OTLPTraceExporter {
  export(spans, done) {
    super.export(spans, (result) => {
      if (result.code !== 0) {
        failures += 1;
        console.error(result.error);
      }
      done(result);
    });
  }
}

function send(tracer, n) {
  const error = n % 5 === 0;
  const root = tracer.startSpan('GET /orders/{id}', {
    kind: SpanKind.SERVER,
    attributes: { n, text: 'grüße 𝄞', yes: true, answer: -42, ratio: 0.25, texts: ['a', 'b'], numbers: [1, 2, 3] },
  });
  const inside = trace.setSpan(context.active(), root);
  const select = tracer.startSpan('SELECT orders', { kind: SpanKind.CLIENT }, inside);
  select.addEvent('row', { count: 7 });
  if (error) {
    select.recordException(new Error('deadlock'));
    select.setStatus({ code: SpanStatusCode.ERROR, message: 'deadlock' });
  }
  select.end();
  const links = [{ context: LINKED, attributes: { why: 'batch' } }];
  const publish = tracer.startSpan('publish', { kind: SpanKind.PRODUCER, links }, inside);
  publish.end();
  root.end();
  const spans = Object.fromEntries([root, select, publish].map((span) => [span.name, span.spanContext().spanId]));
  return { trace_id: root.spanContext().traceId, error, spans };
}

async function main() {
  const processor = new BatchSpanProcessor(new Watched(), { maxExportBatchSize: 64 });
  const resource = defaultResource().merge(detectResources({ detectors: [envDetector] }));
  const provider = new NodeTracerProvider({ resource, spanProcessors: [processor] });
  const tracer = provider.getTracer('tailwater.test', '1.2.3', {
    schemaUrl: 'https://opentelemetry.io/schemas/1.28.0',
  });
  const traces = [];
  for (let n = 0; n < Number(process.argv[2]); n += 1) traces.push(send(tracer, n));
  await provider.forceFlush();
  await provider.shutdown();
  console.log(JSON.stringify({ traces }));
  process.exitCode = failures === 0 ? 0 : 1;
}

main();
