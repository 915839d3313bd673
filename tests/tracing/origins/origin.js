// An origin as a user of OpenTelemetry writes one in Node.js: the SDK, its http instrumentation, OTLP to a collector.
//
//   OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 node origin.js      prints its port
//
// The answer says what the SDK made of the request. /ratio/R/… is sampled by the SDK's own TraceIdRatioBased of R,
// /low/R/… by one that compares the low half of the trace id as the SDKs of other languages do, all else by the default,
// ParentBased(AlwaysOn).

process.env.OTEL_SEMCONV_STABILITY_OPT_IN = "http";
const { trace } = require("@opentelemetry/api");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-proto");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const {
  AlwaysOnSampler,
  BatchSpanProcessor,
  NodeTracerProvider,
  ParentBasedSampler,
  SamplingDecision,
  TraceIdRatioBasedSampler,
} = require("@opentelemetry/sdk-trace-node");

// docs/tracing.md shows this class.
class LowHalfRatioSampler {
  constructor(ratio) {
    this.bound = BigInt(Math.round(ratio * 2 ** 64));
  }
  shouldSample(_context, traceId) {
    const isSampled = BigInt("0x" + traceId.slice(16)) < this.bound;
    return { decision: isSampled ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD };
  }
  toString() {
    return "LowHalfRatioSampler";
  }
}

const byPath = {
  standard: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
  shouldSample(context, traceId, name, kind, attributes, links) {
    const [, word, ratio] = String(attributes["url.path"]).split("/");
    const sampler =
      word === "ratio"
        ? new TraceIdRatioBasedSampler(Number(ratio))
        : word === "low"
          ? new LowHalfRatioSampler(Number(ratio))
          : this.standard;
    return sampler.shouldSample(context, traceId, name, kind, attributes, links);
  },
  toString: () => "byPath",
};

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "origin-nodejs" }),
  sampler: byPath,
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter(), { scheduledDelayMillis: 50 })],
});
provider.register();
// What the exporter sends is not to be traced itself.
registerInstrumentations({ instrumentations: [new HttpInstrumentation({ disableOutgoingRequestInstrumentation: true })] });

const http = require("node:http");
const server = http.createServer((request, response) => {
  const { traceId, spanId, traceFlags } = trace.getActiveSpan().spanContext();
  response.setHeader("Content-Type", "application/json");
  response.setHeader("Cache-Control", "no-store");
  response.end(JSON.stringify({ trace_id: traceId, span_id: spanId, sampled: (traceFlags & 1) === 1 }));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
// Whoever started it is gone when standard input ends.
process.stdin.on("end", () => provider.shutdown().finally(() => process.exit())).resume();
