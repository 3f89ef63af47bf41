import { afterAll } from 'vitest';

/*
 * Runs with every test file. The files of a project share the globals of a worker: a file that left a fake setTimeout
 * behind made the tests of other files wait for ever.
 */
const REAL = Symbol.for('agentllm.realTimers');
const globals = globalThis as { [REAL]?: Readonly<Record<string, unknown>> };
const timers = (): Readonly<Record<string, unknown>> => ({
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  setImmediate: globalThis.setImmediate,
  Date: globalThis.Date,
  'performance.now': globalThis.performance.now,
});
globals[REAL] ??= timers();

afterAll(() => {
  const current = timers();
  const fake = Object.entries(globals[REAL] ?? {}).flatMap(([name, real]) => (current[name] === real ? [] : [name]));
  if (fake.length > 0) throw new Error(`the test file leaves ${fake.join(', ')} replaced`);
});
