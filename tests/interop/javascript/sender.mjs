// A model service in JavaScript: OpenTelemetry's own SDK sends what otel-ml sends of the same rows.
//
//   node sender.mjs '{"protocol": "grpc", "endpoint": "http://127.0.0.1:4317", "temporality": "delta",
//                     "service": "credit-js", "baseline": "credit.baseline.json", "rows": "rows.json"}'
//
// `protocol` is grpc, http/protobuf (compressed) or http/json. The rows are exported in two halves.

import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { diag, DiagConsoleLogger, DiagLogLevel, ValueType } from '@opentelemetry/api';
import { AggregationTemporalityPreference, OTLPMetricExporter as Json } from '@opentelemetry/exporter-metrics-otlp-http';
import { OTLPMetricExporter as Grpc } from '@opentelemetry/exporter-metrics-otlp-grpc';
import { OTLPMetricExporter as Protobuf } from '@opentelemetry/exporter-metrics-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { AggregationTemporality, DataPointType, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';

const SCOPE = 'otel_ml';
const DURATIONS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10];

diag.setLogger(new DiagConsoleLogger(), DiagLogLevel.WARN);
const settings = JSON.parse(process.argv[2]);
const baseline = JSON.parse(readFileSync(settings.baseline));
const { features, scores } = JSON.parse(readFileSync(settings.rows));
const model = { 'ml.model.name': baseline.model, 'ml.model.version': baseline.version };
const identity = { ...model, 'ml.baseline.id': baseline.id };
const delta = settings.temporality === 'delta';

// --- data points that are not recorded value by value ---

const time = milliseconds => [Math.floor(milliseconds / 1000), Math.round((milliseconds % 1000) * 1e6)];

const histogram = (name, dataPoints, aggregationTemporality) => ({
  descriptor: { name, description: '', unit: '', valueType: ValueType.DOUBLE },
  dataPointType: DataPointType.HISTOGRAM,
  aggregationTemporality,
  dataPoints,
});

const point = (attributes, { boundaries, counts }, start, end) => ({
  attributes,
  startTime: time(start),
  endTime: time(end),
  value: { buckets: { boundaries, counts }, count: counts.reduce((a, b) => a + b, 0), sum: undefined, hasMinMax: false },
});

const producer = metrics => ({
  async collect() {
    const scopeMetrics = [{ scope: { name: SCOPE }, metrics: metrics() }];
    return { resourceMetrics: { resource: resourceFromAttributes({}), scopeMetrics }, errors: [] };
  },
});

// The baseline: the counts of its file, cumulative since it was made, whatever the temporality of the rest.
function reference() {
  const [made, now] = [Date.parse(baseline.created_at), Date.now()];
  const named = Object.entries(baseline.features);
  const attributes = (target, name) =>
    ({ ...identity, 'ml.drift.target': target, ...(name && { 'ml.feature.name': name }) });
  const counts = (feature, of) =>
    point(of, { boundaries: feature.bounds, counts: feature.bucket_counts }, made, now);
  const sum = (name, points) => ({
    descriptor: { name, description: '', unit: '{value}', valueType: ValueType.INT },
    dataPointType: DataPointType.SUM,
    aggregationTemporality: AggregationTemporality.CUMULATIVE,
    isMonotonic: true,
    dataPoints: points.map(([of, value]) => ({ attributes: of, startTime: time(made), endTime: time(now), value })),
  });
  const numeric = named.filter(([, feature]) => feature.kind === 'numeric');
  const spread = (key, attribute) => named.flatMap(([name, feature]) => Object.entries(feature[key] ?? {})
    .map(([value, count]) => [{ ...attributes('feature', name), [attribute]: value }, count]));
  return [
    histogram('ml.baseline.value', [
      ...numeric.map(([name, feature]) => counts(feature, attributes('feature', name))),
      counts(baseline.scores, attributes('score')),
    ], AggregationTemporality.CUMULATIVE),
    sum('ml.baseline.categories', spread('categories', 'ml.feature.category')),
    sum('ml.baseline.observations', spread('states', 'ml.feature.state')),
  ];
}

// Instruments of the SDK drop every negative value: a feature that has some is counted here.
class Counted {
  constructor(name, boundaries) {
    this.attributes = { ...identity, 'ml.feature.name': name };
    this.boundaries = boundaries;
    this.start = Date.now();
    this.reset();
  }
  reset() {
    this.counts = new Array(this.boundaries.length + 1).fill(0);
  }
  record(value) { // in (lower, upper]
    const above = this.boundaries.findIndex(bound => value <= bound);
    this.counts[above < 0 ? this.boundaries.length : above] += 1;
  }
  collected() {
    const now = Date.now();
    const made = point(this.attributes, { boundaries: this.boundaries, counts: [...this.counts] }, this.start, now);
    if (delta) {
      this.reset();
      this.start = now;
    }
    return made;
  }
}

// --- the SDK ---

const counted = [];
const temporality = delta ? AggregationTemporality.DELTA : AggregationTemporality.CUMULATIVE;
const options = {
  url: settings.endpoint,
  compression: settings.protocol === 'http/protobuf' ? 'gzip' : 'none',
  temporalityPreference: delta ? AggregationTemporalityPreference.DELTA : AggregationTemporalityPreference.CUMULATIVE,
};
const Exporter = { grpc: Grpc, 'http/protobuf': Protobuf, 'http/json': Json }[settings.protocol];
const reader = new PeriodicExportingMetricReader({
  exporter: new Exporter(options),
  exportIntervalMillis: 3_600_000,
  metricProducers: [
    producer(reference),
    producer(() => [histogram('ml.feature.value', counted.map(one => one.collected()), temporality)]),
  ],
});
const provider = new MeterProvider({
  resource: resourceFromAttributes({ 'service.name': settings.service, 'service.instance.id': randomUUID() }),
  readers: [reader],
});

// --- what is recorded of a row ---

const meter = provider.getMeter(SCOPE);
const counter = (name, unit) => meter.createCounter(name, { unit, valueType: ValueType.INT });
const rows = counter('ml.inference.rows', '{row}');
const states = counter('ml.feature.observations', '{value}');
const categories = counter('ml.feature.categories', '{value}');
const duration = meter.createHistogram('ml.inference.duration', {
  unit: 's', advice: { explicitBucketBoundaries: DURATIONS },
});
const score = meter.createHistogram('ml.prediction.score', {
  advice: { explicitBucketBoundaries: baseline.scores.bounds },
});
// One meter a feature: instruments of one name in one meter share their bounds.
const numbers = Object.fromEntries(Object.entries(baseline.features)
  .filter(([, feature]) => feature.kind === 'numeric')
  .map(([name, { bounds, min }]) => {
    if (min < 0) {
      counted.push(new Counted(name, bounds));
      return [name, counted.at(-1)];
    }
    const advice = { explicitBucketBoundaries: bounds };
    return [name, provider.getMeter(`${SCOPE}.${name}`).createHistogram('ml.feature.value', { advice })];
  }));

function observe(name, value) {
  const attributes = { ...identity, 'ml.feature.name': name };
  const state = found => states.add(1, { ...attributes, 'ml.feature.state': found });
  const { kind, categories: known, min, max, reach } = baseline.features[name];
  if (value === null) return state('missing');
  if (kind === 'numeric') {
    numbers[name].record(value, attributes);
    return state(value < min - reach || value > max + reach ? 'out_of_range' : 'ok');
  }
  const category = value in known ? value : '__unseen__';
  categories.add(1, { ...attributes, 'ml.feature.category': category });
  return state(category === value ? 'ok' : 'unseen');
}

function predict(first, last) {
  const began = performance.now();
  for (let i = first; i < last; i++) {
    for (const [name, values] of Object.entries(features)) observe(name, values[i]);
    score.record(scores[i], { ...identity, 'ml.prediction.score.type': 'probability' });
  }
  const operation = { ...model, 'ml.operation.name': 'predict' };
  rows.add(last - first, operation);
  duration.record((performance.now() - began) / 1000, operation);
}

const half = Math.floor(scores.length / 2);
predict(0, half);
await provider.forceFlush();
predict(half, scores.length);
await provider.shutdown();
