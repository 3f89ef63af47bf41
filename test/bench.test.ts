import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { Lab } from '../bench/lab.js';
import { frame, loadGenerator, parseLog, parseReport, refuseFailures } from '../bench/load.js';
import { isMet } from '../bench/row.js';
import { row as reads } from '../bench/rows/reads.js';
import { loadRows } from '../bench/rows.js';
import { startService } from '../bench/service.js';
import { compare, interleave, median, quantile } from '../bench/statistics.js';
import { markdownOf, type Outcome, short, tableOf } from '../bench/table.js';
import { packageFile } from '../src/package.js';

/* The bench as a program: that it reckons right and refuses to measure errors. How fast anything is, is no test. */

describe('statistics', () => {
  it('has medians of odd and even counts, in any order', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([9, 1, 5, 7])).toBe(6);
    expect(() => median([])).toThrow();
  });

  it('has quantiles by nearest rank', () => {
    const values = Array.from({ length: 200 }, (_, at) => 200 - at);
    expect(quantile(values, 0.99)).toBe(198);
    expect(quantile(values, 0.5)).toBe(100);
    expect(quantile([7], 0.99)).toBe(7);
    expect(() => quantile([], 0.5)).toThrow();
  });

  it('measures both sides in turns, and each goes first', async () => {
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

  it('compares round by round, so that a slow round of both changes nothing', () => {
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

describe('what h2load prints', () => {
  const report = parseReport(REPORT);
  const target = { port: 1, path: '/a/b', request: new Uint8Array(), replyBytes: 130 };
  const load = { connections: 4, streams: 16 };

  it('is read', () => {
    expect(report).toEqual({ perSecond: 27928, done: 55856, succeeded: 55856, failed: 0, dataBytes: 7540560 });
    expect(() => parseReport('h2load: command not found')).toThrow(/unexpected summary/);
  });

  it('is taken when all replies have their bytes, and refused when they have not', () => {
    refuseFailures(report, target, load);
    refuseFailures({ ...report, dataBytes: report.dataBytes - 100 * 135 }, target, load);
    expect(() => refuseFailures({ ...report, dataBytes: 0 }, target, load)).toThrow(
      /about 0 of \d+ responses had the expected message/,
    );
    const some = { ...report, dataBytes: report.dataBytes - 200 * 135 };
    expect(() => refuseFailures(some, target, load)).toThrow(/about 55656/);
    expect(() => refuseFailures({ ...report, succeeded: 55855 }, target, load)).toThrow(/1 calls failed/);
    expect(() => refuseFailures({ ...report, done: 0, succeeded: 0, dataBytes: 0 }, target, load)).toThrow(
      /no response/,
    );
  });

  it('has times for each request in its log', () => {
    expect(parseLog('17\t0\t900\n18\t200\t250\n19\t200\t350\n20\t-1\t5\n')).toEqual({
      latencies: [250, 350],
      failed: 1,
    });
  });

  it('frames a message as gRPC does', () => {
    expect([...frame(Uint8Array.of(1, 2, 3))]).toEqual([0, 0, 0, 0, 3, 1, 2, 3]);
  });
});

describe('the table', () => {
  const goal = { kind: 'ratio at least', value: 0.9 } as const;
  const figure = { what: 'reads', unit: 'calls/s', ours: 33_752.4, reference: 44_848, compared: 0.75, goal };
  const outcomes: Outcome[] = [
    { name: 'reads', target: '', figures: [figure, { ...figure, what: 'more', compared: 0.9, note: 'a | note' }] },
    { name: 'etcd', target: '', figures: [{ what: 'etcd', unit: 'ms', goal, note: 'not installed' }] },
    { name: 'broken', target: '', figures: [], error: 'it broke' },
  ];

  it('says what is met, what is missed, what could not be measured and what failed', () => {
    const lines = tableOf(outcomes).split('\n');
    const of = (what: string) => lines.find((line) => line.startsWith(what))?.split(/ {2,}/);
    expect(of('reads')).toEqual(['reads', '33 752 calls/s', '44 848 calls/s', '0.75', '≥ 0.90', 'NO']);
    expect(of('more')?.at(-1)).toBe('yes');
    expect(of('etcd')).toEqual(['etcd', '≥ 0.90']);
    expect(lines).toContain('etcd: not installed');
    expect(of('broken: failed')?.at(-1)).toBe('NO');
    expect(lines).toContain('broken: it broke');
  });

  it('is a table in Markdown too', () => {
    const [head, rule, first] = markdownOf(outcomes).split('\n');
    const columns = (line = '') => line.split('|').length;
    expect([columns(rule), columns(first)]).toEqual([columns(head), columns(head)]);
  });

  it('writes figures with three digits that count', () => {
    expect([0.061_12, 1.5, 99.94, 12_345.6, -3].map(short)).toEqual(['0.0611', '1.5', '99.9', '12 346', '-3']);
  });

  it('knows every kind of goal', () => {
    const met = (kind: 'ratio at least' | 'ratio at most' | 'ratio above' | 'difference at most', compared?: number) =>
      isMet({ what: '', unit: '', compared, goal: { kind, value: 1 } });
    expect([met('ratio at least', 1), met('ratio at least', 0.99)]).toEqual([true, false]);
    expect([met('ratio at most', 1), met('ratio at most', 1.01)]).toEqual([true, false]);
    expect([met('ratio above', 1), met('ratio above', 1.01)]).toEqual([false, true]);
    expect([met('difference at most', 1), met('difference at most', 1.1)]).toEqual([true, false]);
    expect([met('ratio at least'), isMet({ what: '', unit: '', compared: 1 })]).toEqual([undefined, undefined]);
  });
});

describe('rows', () => {
  it('are found by themselves, each with a name of its own', async () => {
    const rows = await loadRows();
    expect(rows.map(({ name }) => name)).toEqual(expect.arrayContaining(['reads', 'etcd', 'batch', 'writes', 'start']));
    expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length);
    for (const { about, target } of rows) expect([about, target].every((text) => text.length > 10)).toBe(true);
  });

  it('are refused by a name that there is not, with those that there are', async () => {
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

describe('a run', () => {
  let lab: Lab;
  const tiny = () => {
    lab = new Lab({ rounds: 1, seconds: 0.3, warmUpSeconds: 0.1 });
    return lab;
  };
  afterEach(() => lab.close());

  it('measures both sides and leaves nothing behind', async () => {
    const figures = await reads.run(tiny());
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

  it('refuses to measure calls that fail, whichever generator there is', async () => {
    const here = tiny();
    const service = await startService(here);
    const path = '/agentllm.v1.AgentLLMConfigService/GetConfig';
    const missing = { port: service.port, path, request: Uint8Array.of(8, 99), replyBytes: 130 };
    for (const own of [false, true]) {
      const { generate } = await loadGenerator(here, { own });
      await expect(generate(missing, { connections: 1, streams: 2 })).rejects.toThrow(
        /had the expected message|grpc-status 5/,
      );
    }
  });

  it('has a generator of its own for machines without h2load', async () => {
    const here = tiny();
    const service = await startService(here);
    const path = '/agentllm.v1.AgentLLMConfigService/GetConfig';
    const request = Uint8Array.of(8, 1);
    const { length } = await service.client(path, request);
    const { name, generate } = await loadGenerator(here, { own: true });
    expect(name).toContain('own_load.ts');
    const target = { port: service.port, path, request, replyBytes: length };
    const { perSecond, p50, p99 } = await generate(target, { connections: 2, streams: 4 });
    expect(perSecond).toBeGreaterThan(0);
    expect(p50).toBeGreaterThan(0);
    expect(p99).toBeGreaterThanOrEqual(p50);
  });
});
