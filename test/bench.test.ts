import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Lab } from '../bench/lab.js';
import { frame, loadGenerator, parseLog, parseReport, refuseFailures } from '../bench/load.js';
import { isMet } from '../bench/row.js';
import { delaysOf } from '../bench/rows/live.js';
import { row as reads } from '../bench/rows/reads.js';
import { loadRows } from '../bench/rows.js';
import { startService } from '../bench/service.js';
import { compare, interleave, median, quantile } from '../bench/statistics.js';
import { markdownOf, type Outcome, short, tableOf } from '../bench/table.js';
import { packageFile } from '../src/package.js';

/* The benchmark as a program: its calculations are correct, and it rejects failed calls. No test checks a speed. */

describe('statistics', () => {
  it('computes medians of odd and even counts in any order', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([9, 1, 5, 7])).toBe(6);
    expect(() => median([])).toThrow();
  });

  it('computes quantiles by nearest rank', () => {
    const values = Array.from({ length: 200 }, (_, index) => 200 - index);
    expect(quantile(values, 0.99)).toBe(198);
    expect(quantile(values, 0.5)).toBe(100);
    expect(quantile([7], 0.99)).toBe(7);
    expect(() => quantile([], 0.5)).toThrow();
  });

  it('measures both sides alternately and changes which side is first in each round', async () => {
    const order: string[] = [];
    const side = (name: string) => async (round: number) => order.push(`${name}${round}`);
    const pairs = await interleave(3, side('a'), side('b'));
    expect(order).toEqual(['a0', 'b0', 'b1', 'a1', 'a2', 'b2']);
    expect(pairs).toEqual([
      { ours: 1, reference: 2 },
      { ours: 4, reference: 3 },
      { ours: 5, reference: 6 },
    ]);
  });

  it('compares both sides per round, so that a round in which both are slow has no effect', () => {
    const pairs = [
      { ours: 90, reference: 100 },
      { ours: 9, reference: 10 },
      { ours: 200, reference: 100 },
    ];
    expect(compare(pairs, (value) => value)).toEqual({ ours: 90, reference: 100, compared: 0.9 });
    expect(compare(pairs, (value) => value, 'difference').compared).toBe(-1);
  });
});

const REPORT = `finished in 2.00s, 27928.00 req/s, 4.39MB/s
requests: 55856 total, 55856 started, 55856 done, 55856 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 55856 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 8.79MB (9216775) total, 316.08KB (323664) headers (space savings 96.40%), 7.20MB (7540560) data
`;

describe('the reader of h2load output', () => {
  const report = parseReport(REPORT);
  const target = { port: 1, path: '/a/b', request: new Uint8Array(), replyBytes: 130 };
  const load = { connections: 4, streams: 16 };

  it('parses the summary and rejects other output', () => {
    expect(report).toEqual({ perSecond: 27928, done: 55856, succeeded: 55856, failed: 0, dataBytes: 7540560 });
    expect(() => parseReport('h2load: command not found')).toThrow(/unexpected summary/);
  });

  it('rejects a report when calls failed or responses do not have the expected size', () => {
    refuseFailures(report, target, load);
    refuseFailures({ ...report, dataBytes: report.dataBytes - 100 * 135 }, target, load);
    expect(() => refuseFailures({ ...report, dataBytes: 0 }, target, load)).toThrow(
      /about 0 of \d+ responses had the expected message/,
    );
    const incomplete = { ...report, dataBytes: report.dataBytes - 200 * 135 };
    expect(() => refuseFailures(incomplete, target, load)).toThrow(/about 55656/);
    expect(() => refuseFailures({ ...report, succeeded: 55855 }, target, load)).toThrow(/1 calls failed/);
    expect(() => refuseFailures({ ...report, done: 0, succeeded: 0, dataBytes: 0 }, target, load)).toThrow(
      /no response/,
    );
  });

  it('reads the latency of each successful call from the log', () => {
    expect(parseLog('18\t200\t250\n19\t200\t350\n20\t-1\t5\n')).toEqual([250, 350]);
  });

  it('frames a message in the gRPC format', () => {
    expect([...frame(Uint8Array.of(1, 2, 3))]).toEqual([0, 0, 0, 0, 3, 1, 2, 3]);
  });
});

describe('the delays of changes', () => {
  const sent = new Map([
    [7, 100],
    [8, 200],
  ]);

  it('are measured for each client and each revision', () => {
    const applied = [
      { revision: 6, at: [50] },
      { revision: 8, at: [230, 240] },
      { revision: 7, at: [110, 120] },
    ];
    expect(delaysOf(sent, applied, 2)).toEqual([10, 20, 30, 40]);
  });

  it.each([
    ['no client', []],
    ['only some clients', [{ revision: 8, at: [230] }]],
  ])('are rejected when %s applied a revision', (_, some) => {
    const applied = [{ revision: 7, at: [110, 120] }, ...some];
    expect(() => delaysOf(sent, applied, 2)).toThrow(/of 2 clients applied revision 8/);
  });
});

describe('the result table', () => {
  const goal = { kind: 'ratio at least', value: 0.9 } as const;
  const figure = { what: 'reads', unit: 'calls/s', ours: 33_752.4, reference: 44_848, compared: 0.75, goal };
  const outcomes: Outcome[] = [
    { name: 'reads', target: '', figures: [figure, { ...figure, what: 'more', compared: 0.9, note: 'a | note' }] },
    { name: 'etcd', target: '', figures: [{ what: 'etcd', unit: 'ms', goal, note: 'not installed' }] },
    { name: 'broken', target: '', figures: [], error: 'it broke' },
  ];

  it('shows which goals are met, missed, not measured and failed', () => {
    const lines = tableOf(outcomes).split('\n');
    const rowOf = (what: string) => lines.find((line) => line.startsWith(what))?.split(/ {2,}/);
    expect(rowOf('reads')).toEqual(['reads', '33 752 calls/s', '44 848 calls/s', '0.75', '≥ 0.90', 'NO']);
    expect(rowOf('more')?.at(-1)).toBe('yes');
    expect(rowOf('etcd')).toEqual(['etcd', '≥ 0.90']);
    expect(lines).toContain('etcd: not installed');
    expect(rowOf('broken: failed')?.at(-1)).toBe('NO');
    expect(lines).toContain('broken: it broke');
  });

  it('has the same number of columns in each row in Markdown', () => {
    const [head, rule, first] = markdownOf(outcomes).split('\n');
    const columns = (line = '') => line.split('|').length;
    expect([columns(rule), columns(first)]).toEqual([columns(head), columns(head)]);
  });

  it('shows figures with three significant digits', () => {
    expect([0.061_12, 1.5, 99.94, 12_345.6, -3].map(short)).toEqual(['0.0611', '1.5', '99.9', '12 346', '-3']);
  });

  it('evaluates every kind of goal', () => {
    const met = (kind: 'ratio at least' | 'ratio at most' | 'ratio above' | 'difference at most', compared?: number) =>
      isMet({ what: '', unit: '', compared, goal: { kind, value: 1 } });
    expect([met('ratio at least', 1), met('ratio at least', 0.99)]).toEqual([true, false]);
    expect([met('ratio at most', 1), met('ratio at most', 1.01)]).toEqual([true, false]);
    expect([met('ratio above', 1), met('ratio above', 1.01)]).toEqual([false, true]);
    expect([met('difference at most', 1), met('difference at most', 1.1)]).toEqual([true, false]);
    expect([met('ratio at least'), isMet({ what: '', unit: '', compared: 1 })]).toEqual([undefined, undefined]);
  });
});

describe('the benchmark rows', () => {
  it('are found automatically and have unique names', async () => {
    const rows = await loadRows();
    expect(rows.map(({ name }) => name)).toEqual(expect.arrayContaining(['reads', 'etcd', 'batch', 'writes', 'start']));
    expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length);
    for (const { about, target } of rows) expect([about, target].every((text) => text.length > 10)).toBe(true);
  });

  it('are listed in the error when the requested row does not exist', async () => {
    const run = promisify(execFile)(process.execPath, ['--import', 'tsx', 'bench/main.ts', 'raeds'], {
      cwd: packageFile('.'),
    });
    const error = await run.then(
      () => undefined,
      (failed: { code: number; stderr: string }) => failed,
    );
    expect(error?.code).toBe(2);
    expect(error?.stderr).toMatch(/Unknown row raeds; the rows are .*reads/);
  });
});

const hasH2load = spawnSync('h2load', ['--version']).status === 0;

describe('a benchmark run', () => {
  let lab: Lab;
  const startLab = () => {
    lab = new Lab({ rounds: 1, seconds: 1, warmUpSeconds: 0.1 });
    return lab;
  };
  afterEach(() => lab.close());

  it('measures both sides and leaves no directory or process', async () => {
    const figures = await reads.run(startLab());
    expect(figures.map(({ what }) => what)).toContain('GetConfig, throughput');
    for (const { ours = 0, reference = 0, compared = 0 } of figures) {
      expect(ours).toBeGreaterThan(0);
      expect(reference).toBeGreaterThan(0);
      expect(compared).toBeCloseTo(ours / reference, 5);
    }
    const directory = await lab.directory();
    const child = lab.start('sleep', ['60']);
    await lab.close();
    expect(existsSync(directory)).toBe(false);
    expect(child.process.signalCode).toBe('SIGTERM');
  });

  it('rejects calls that fail with both load generators', async () => {
    startLab();
    const service = await startService(lab);
    const path = '/agentllm.v1.AgentLLMConfigService/GetConfig';
    const missing = { port: service.port, path, request: Uint8Array.of(8, 99), replyBytes: 130 };
    for (const own of [false, true]) {
      const { generate } = await loadGenerator(lab, { own });
      await expect(generate(missing, { connections: 1, streams: 2 })).rejects.toThrow(
        /had the expected message|grpc-status 5/,
      );
    }
  });

  it.runIf(hasH2load)('measures only the calls of one run with h2load, which appends to its log', async () => {
    startLab();
    const service = await startService(lab);
    const path = '/agentllm.v1.AgentLLMConfigService/GetConfig';
    const request = Uint8Array.of(8, 1);
    const { length } = await service.client(path, request);
    const directory = vi.spyOn(lab, 'directory');
    const { generate } = await loadGenerator(lab);
    // Each run fails when its log has another number of calls than its report.
    for (let run = 0; run < 2; run++)
      await generate({ port: service.port, path, request, replyBytes: length }, { connections: 1, streams: 2 });
    expect(await readdir(await (directory.mock.results[0]?.value as Promise<string>))).toEqual(['body']);
  });

  it('uses the built-in load generator when h2load is not installed', async () => {
    startLab();
    const service = await startService(lab);
    const path = '/agentllm.v1.AgentLLMConfigService/GetConfig';
    const request = Uint8Array.of(8, 1);
    const { length } = await service.client(path, request);
    const { name, generate } = await loadGenerator(lab, { own: true });
    expect(name).toContain('own_load.ts');
    const target = { port: service.port, path, request, replyBytes: length };
    const { perSecond, p50, p99 } = await generate(target, { connections: 2, streams: 4 });
    expect(perSecond).toBeGreaterThan(0);
    expect(p50).toBeGreaterThan(0);
    expect(p99).toBeGreaterThanOrEqual(p50);
  });
});
