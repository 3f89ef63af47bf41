import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Counts one call of a method by its outcome. */
export type Measure = (code: string, ms: number) => void;

/** What the service tells Prometheus. */
export interface Metrics {
  readonly registry: Registry;
  forMethod(method: string): Measure;
}

interface Sources {
  readonly revision: () => number;
  readonly databaseWritable: () => boolean;
  readonly rows: () => Readonly<Record<string, number>>;
}

export function createMetrics(sources: Sources): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const handled = new Counter({
    name: 'agentllm_calls_total',
    help: 'Calls that ended, by method and status code',
    labelNames: ['method', 'code'],
    registers,
  });
  const seconds = new Histogram({
    name: 'agentllm_call_duration_seconds',
    help: 'Time from the decoded request to the answer, by method',
    labelNames: ['method'],
    buckets: [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
    registers,
  });
  gauge(registers, 'agentllm_revision', 'Store revision that reads are served at', sources.revision);
  gauge(registers, 'agentllm_database_writable', '1 while the database answers and takes writes', () =>
    sources.databaseWritable() ? 1 : 0,
  );
  new Gauge({
    name: 'agentllm_rows',
    help: 'Rows of the configuration in memory, by entity',
    labelNames: ['entity'],
    registers,
    collect() {
      for (const [entity, count] of Object.entries(sources.rows())) this.set({ entity }, count);
    },
  });
  return { registry, forMethod: (method) => forMethod(handled, seconds, method) };
}

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

// Labels are bound once: looking them up on every call costs as much as answering from memory.
function forMethod(handled: Counter, seconds: Histogram, method: string): Measure {
  const byCode = new Map<string, Counter.Internal>();
  const duration = seconds.labels(method);
  return (code, ms) => {
    const counter = byCode.get(code) ?? handled.labels(method, code);
    byCode.set(code, counter);
    counter.inc();
    duration.observe(ms / 1000);
  };
}
