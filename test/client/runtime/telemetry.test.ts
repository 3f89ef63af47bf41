import { AsyncLocalStorage } from 'node:async_hooks';
import { type Context, type ContextManager, context, metrics, ROOT_CONTEXT, trace } from '@opentelemetry/api';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Telemetry } from '../../../src/client/runtime/telemetry.js';
import { chatCompletion, failure, startScriptedProvider } from '../../support/scripted_provider.js';
import { callGenerate, callOf, chainAgent, TestRuntime } from './support.js';

const spans = new InMemorySpanExporter();
const points = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
const reader = new PeriodicExportingMetricReader({ exporter: points, exportIntervalMillis: 3_600_000 });

/** The smallest context manager: that of the SDK is a package of its own. */
class Contexts implements ContextManager {
  private readonly storage = new AsyncLocalStorage<Context>();

  active(): Context {
    return this.storage.getStore() ?? ROOT_CONTEXT;
  }

  with<A extends unknown[], F extends (...args: A) => ReturnType<F>>(
    active: Context,
    work: F,
    self?: ThisParameterType<F>,
    ...args: A
  ) {
    return this.storage.run(active, () => work.call(self, ...args));
  }

  bind<T>(_: Context, target: T): T {
    return target;
  }

  enable(): this {
    return this;
  }

  disable(): this {
    return this;
  }
}

beforeAll(() => {
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }));
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }));
  context.setGlobalContextManager(new Contexts());
});
afterAll(() => {
  trace.disable();
  metrics.disable();
  context.disable();
});
beforeEach(() => spans.reset());

const runtime = () => new TestRuntime({ telemetry: new Telemetry() });

describe('telemetry', () => {
  it('emits a span for the call with spans for its attempts, with the names of the conventions', async () => {
    const a = await startScriptedProvider(failure(401), chatCompletion('x'));
    const b = await startScriptedProvider(chatCompletion('hi'));
    const agent = chainAgent({ url: a.url, config: { temperature: 0 } }, { url: b.url, config: { temperature: 0 } });
    await trace.getTracer('test').startActiveSpan('parent', async (parent) => {
      await callGenerate(runtime(), callOf(agent, { runId: 'r' }));
      parent.end();
    });
    const [first, second, call, parent] = spans.getFinishedSpans();
    expect(call).toMatchObject({ name: 'chat m0', kind: 2, status: { code: 0 } });
    expect(call?.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'p1',
      'gen_ai.request.model': 'm1',
      'gen_ai.request.temperature': 0,
      'gen_ai.response.model': 'served',
      'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.usage.input_tokens': 3,
      'gen_ai.usage.output_tokens': 2,
      'gen_ai.agent.name': 'trader',
      'agentllm.outcome': 'completed',
      'agentllm.attempts': 2,
      'agentllm.run.id': 'r',
    });
    expect(first).toMatchObject({ name: 'attempt p0/m0', status: { code: 2 } });
    expect(first?.attributes).toMatchObject({
      'error.type': 'auth',
      'http.response.status_code': 401,
      'agentllm.action': 'next_hop',
    });
    expect(second).toMatchObject({ name: 'attempt p1/m1', status: { code: 0 } });
    const id = (span: typeof call) => span?.spanContext().spanId;
    expect([first, second].map((span) => span?.parentSpanContext?.spanId)).toEqual([id(call), id(call)]);
    expect(call?.parentSpanContext?.spanId).toBe(id(parent));
    expect(JSON.stringify([...spans.getFinishedSpans()].map(({ attributes }) => attributes))).not.toContain(
      'sk-secret',
    );
  });

  it('measures the duration of calls and the tokens of all attempts', async () => {
    const a = await startScriptedProvider(chatCompletion('hi'));
    await callGenerate(runtime(), callOf(chainAgent({ url: a.url, model: 'measured' })));
    await reader.forceFlush();
    const all =
      points
        .getMetrics()
        .at(-1)
        ?.scopeMetrics.flatMap((scope) => scope.metrics) ?? [];
    const of = (name: string) =>
      all
        .find(({ descriptor }) => descriptor.name === name)
        ?.dataPoints.filter(({ attributes }) => attributes['gen_ai.request.model'] === 'measured') ?? [];
    expect(of('gen_ai.client.operation.duration')).toMatchObject([{ value: { count: 1 } }]);
    expect(
      of('gen_ai.client.token.usage').map(({ attributes, value }) => [
        attributes['gen_ai.token.type'],
        (value as { sum: number }).sum,
      ]),
    ).toEqual([
      ['input', 3],
      ['output', 2],
    ]);
  });

  it('does nothing in a process without the API', async () => {
    const a = await startScriptedProvider(chatCompletion('hi'));
    const telemetry = new Telemetry(() => Promise.reject(new Error('not installed')));
    await callGenerate(new TestRuntime({ telemetry }), callOf(chainAgent({ url: a.url })));
    expect(spans.getFinishedSpans()).toEqual([]);
    expect(telemetry.ready()).toBeUndefined();
  });
});
