// Sends traces with the Go SDK. See ../README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

type sent struct {
	TraceID string            `json:"trace_id"`
	Error   bool              `json:"error"`
	Spans   map[string]string `json:"spans"`
}

var linked = trace.NewSpanContext(trace.SpanContextConfig{
	TraceID:    trace.TraceID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	SpanID:     trace.SpanID{1, 2, 3, 4, 5, 6, 7, 8},
	TraceFlags: trace.FlagsSampled,
	Remote:     true,
})

func send(tracer trace.Tracer, n int) sent {
	failed := n%5 == 0
	ctx, root := tracer.Start(context.Background(), "GET /orders/{id}", trace.WithSpanKind(trace.SpanKindServer))
	root.SetAttributes(
		attribute.Int("n", n),
		attribute.String("text", "grüße 𝄞"),
		attribute.Bool("yes", true),
		attribute.Int("answer", -42),
		attribute.Float64("ratio", 0.25),
		attribute.StringSlice("texts", []string{"a", "b"}),
		attribute.IntSlice("numbers", []int{1, 2, 3}),
	)
	_, query := tracer.Start(ctx, "SELECT orders", trace.WithSpanKind(trace.SpanKindClient))
	query.AddEvent("row", trace.WithAttributes(attribute.Int("count", 7)))
	if failed {
		query.RecordError(errors.New("deadlock"))
		query.SetStatus(codes.Error, "deadlock")
	}
	query.End()
	link := trace.Link{SpanContext: linked, Attributes: []attribute.KeyValue{attribute.String("why", "batch")}}
	_, publish := tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(link))
	publish.End()
	root.End()
	return sent{
		TraceID: root.SpanContext().TraceID().String(),
		Error:   failed,
		Spans: map[string]string{
			"GET /orders/{id}": root.SpanContext().SpanID().String(),
			"SELECT orders":    query.SpanContext().SpanID().String(),
			"publish":          publish.SpanContext().SpanID().String(),
		},
	}
}

func exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc" {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

func run(count int) error {
	var failures atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		fmt.Fprintln(os.Stderr, err)
		failures.Add(1)
	}))
	ctx := context.Background()
	exporter, err := exporter(ctx)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter, sdktrace.WithMaxExportBatchSize(64)))
	tracer := provider.Tracer("tailwater.test",
		trace.WithInstrumentationVersion("1.2.3"),
		trace.WithSchemaURL("https://opentelemetry.io/schemas/1.28.0"))
	traces := make([]sent, 0, count)
	for n := range count {
		traces = append(traces, send(tracer, n))
	}
	if err := errors.Join(provider.ForceFlush(ctx), provider.Shutdown(ctx)); err != nil {
		return err
	}
	if failures.Load() > 0 {
		return fmt.Errorf("%d exports failed", failures.Load())
	}
	return json.NewEncoder(os.Stdout).Encode(map[string][]sent{"traces": traces})
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = run(count)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
