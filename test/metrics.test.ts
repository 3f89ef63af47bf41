import { expect, it } from 'vitest';
import { createMetrics } from '../src/metrics.js';

it('createMetrics counts calls by method and code, and their durations in cumulative buckets', async () => {
  const metrics = createMetrics({
    revision: () => 7,
    databaseWritable: () => true,
    watches: () => ({ live: 3, behind: 1 }),
    rows: () => ({ agent: 2 }),
  });
  const measure = metrics.forMethod('a/B');
  measure('OK', 0.3);
  measure('OK', 7);
  measure('NOT_FOUND', 99_000);
  const text = await metrics.registry.metrics();
  const lines = text.split('\n').filter((line) => /^agentllm_|^# TYPE agentllm_call/.test(line));
  const buckets = ['0.0001', '0.0005', '0.001', '0.005', '0.01', '0.05', '0.1', '0.5', '1', '5', '30', '+Inf'];
  const counts = [0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3];
  expect(lines).toEqual([
    '# TYPE agentllm_calls_total counter',
    'agentllm_calls_total{method="a/B",code="OK"} 2',
    'agentllm_calls_total{method="a/B",code="NOT_FOUND"} 1',
    '# TYPE agentllm_call_duration_seconds histogram',
    ...buckets.map((le, at) => `agentllm_call_duration_seconds_bucket{method="a/B",le="${le}"} ${counts[at]}`),
    'agentllm_call_duration_seconds_sum{method="a/B"} 99.0073',
    'agentllm_call_duration_seconds_count{method="a/B"} 3',
    'agentllm_revision 7',
    'agentllm_database_writable 1',
    'agentllm_rows{entity="agent"} 2',
    'agentllm_watches{state="live"} 3',
    'agentllm_watches{state="behind"} 1',
    'agentllm_usage_cost_usd_total 0',
  ]);
  expect(await metrics.registry.metrics()).toContain('agentllm_calls_total{method="a/B",code="OK"} 2');
});
