import { Counter, collectDefaultMetrics, Gauge, type Metric, Registry } from 'prom-client';

/** Counts one call of a method by its outcome. */
export type Measure = (code: string, ms: number) => void;

/** The Prometheus metrics of the service. */
export interface Metrics {
  readonly registry: Registry;
  forMethod(method: string): Measure;
  readonly usage: UsageMetrics;
}

/** Counts the attempts that this replica records. */
export interface UsageMetrics {
  /** @param unpricedReason the reason why the cost is unknown; null if it is known. */
  countStored(outcome: string, nanoUsd: bigint | null, unpricedReason: string | null): void;
  countRejected(reason: string): void;
}

interface Sources {
  readonly revision: () => number;
  readonly databaseWritable: () => boolean;
  readonly watches: () => Readonly<Record<string, number>>;
  readonly rows: () => Readonly<Record<string, number>>;
  /** The expiry of the certificate; undefined without TLS. */
  readonly certificateExpiry?: (() => Date) | undefined;
}

export function createMetrics(sources: Sources): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const methods = new Map<string, MethodCalls>();
  new Counter({
    name: 'agentllm_calls_total',
    help: 'Calls that ended, by method and status code',
    labelNames: ['method', 'code'],
    registers,
    collect() {
      this.reset();
      for (const [method, { byCode }] of methods) for (const [code, calls] of byCode) this.inc({ method, code }, calls);
    },
  });
  registry.registerMetric(durationsOf(methods));
  gauge(registers, 'agentllm_revision', 'Store revision that reads are served at', sources.revision);
  gauge(registers, 'agentllm_database_writable', '1 while the database is available and accepts writes', () =>
    sources.databaseWritable() ? 1 : 0,
  );
  const { certificateExpiry } = sources;
  if (certificateExpiry)
    gauge(
      registers,
      'agentllm_certificate_expiry_seconds',
      'When the certificate expires, in Unix time',
      () => certificateExpiry().getTime() / 1000,
    );
  labelledGauge(registers, 'agentllm_rows', 'Rows of the configuration in memory, by entity', 'entity', sources.rows);
  labelledGauge(
    registers,
    'agentllm_watches',
    'Open streams of WatchConfigs, by whether they have caught up',
    'state',
    sources.watches,
  );
  const forMethod = (method: string): Measure => {
    const calls = new MethodCalls();
    methods.set(method, calls);
    return (code, ms) => calls.count(code, ms / 1000);
  };
  return { registry, forMethod, usage: usageMetrics(registers) };
}

/** Labels contain no model names, because a reporter could send any number of different names. */
function usageMetrics(registers: Registry[]): UsageMetrics {
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name: `agentllm_usage_${name}`, help, labelNames, registers });
  const attempts = counter('attempts_total', 'New attempts that were recorded, by outcome', ['outcome']);
  const unpriced = counter('unpriced_attempts_total', 'New attempts whose cost is unknown, by reason', ['reason']);
  const rejected = counter('rejected_attempts_total', 'Reported attempts that were rejected, by reason', ['reason']);
  const cost = counter('cost_usd_total', 'The known cost of new attempts, in USD');
  return {
    countStored(outcome, nanoUsd, unpricedReason) {
      attempts.inc({ outcome: shortName(outcome, 'ATTEMPT_OUTCOME_') });
      if (nanoUsd === null) unpriced.inc({ reason: shortName(unpricedReason ?? '', 'UNPRICED_REASON_') });
      else cost.inc(Number(nanoUsd) / 1e9);
    },
    countRejected: (reason) => rejected.inc({ reason: shortName(reason, 'USAGE_REJECTION_') }),
  };
}

const shortName = (value: string, prefix: string): string => value.replace(prefix, '').toLowerCase();

function gauge(registers: Registry[], name: string, help: string, value: () => number): void {
  new Gauge({
    name,
    help,
    registers,
    collect() {
      this.set(value());
    },
  });
}

function labelledGauge(
  registers: Registry[],
  name: string,
  help: string,
  label: string,
  values: () => Readonly<Record<string, number>>,
): void {
  new Gauge({
    name,
    help,
    labelNames: [label],
    registers,
    collect() {
      for (const [labelValue, value] of Object.entries(values())) this.set({ [label]: labelValue }, value);
    },
  });
}

const BUCKETS = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30];

/**
 * The calls of one method, counted in plain numbers until the metrics are collected: prom-client looks up its labels at
 * every observation, bound or not, which took 3 % of the time of a read from memory.
 */
class MethodCalls {
  readonly byCode = new Map<string, number>();
  /** Calls by the first bucket that covers their duration; the last element counts calls above all buckets. */
  readonly byBucket = new Array<number>(BUCKETS.length + 1).fill(0);
  seconds = 0;

  count(code: string, seconds: number): void {
    this.byCode.set(code, (this.byCode.get(code) ?? 0) + 1);
    let at = 0;
    while (at < BUCKETS.length && seconds > (BUCKETS[at] as number)) at++;
    this.byBucket[at] = (this.byBucket[at] as number) + 1;
    this.seconds += seconds;
  }
}

const DURATION = 'agentllm_call_duration_seconds';

/** The histogram of all methods as a metric of the registry, which only reads the values of a metric. */
function durationsOf(methods: ReadonlyMap<string, MethodCalls>): Metric {
  const description = {
    name: DURATION,
    help: 'Time from the decoded request to the response, by method',
    type: 'histogram',
    aggregator: 'sum',
  };
  const get = async () => ({ ...description, values: [...methods].flatMap(seriesOf) });
  return { ...description, get, reset: () => undefined } as unknown as Metric;
}

/** The series of one method. Buckets are cumulative, as Prometheus requires. */
function seriesOf([method, { byBucket, seconds }]: readonly [string, MethodCalls]) {
  let calls = 0;
  const buckets = byBucket.map((count, at) => {
    calls += count;
    return { metricName: `${DURATION}_bucket`, labels: { method, le: BUCKETS[at] ?? '+Inf' }, value: calls };
  });
  return [
    ...buckets,
    { metricName: `${DURATION}_sum`, labels: { method }, value: seconds },
    { metricName: `${DURATION}_count`, labels: { method }, value: calls },
  ];
}
