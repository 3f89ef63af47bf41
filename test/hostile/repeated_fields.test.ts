import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { type DescExtension, type DescMethod, getOption } from '@bufbuild/protobuf';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { BadRequest } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { maxElementsOf } from '../../src/api/dispatch/request_shape.js';
import { limits } from '../../src/limits.js';
import { ServerProcess } from '../faults/server.js';
import { errorOf, send } from '../http/support.js';
import { contract } from '../support/access.js';
import { agentllm, copyFirstStart } from '../support/command.js';
import { freePort } from '../support/ports.js';
import { countFor, delimited, jsonRequest, type RepeatedField, repeatedFields, wireRequest } from './requests.js';
import { Caller, type Ending } from './whole_service.js';

vi.setConfig({ testTimeout: 60_000 });

/** The longest wait of a well-behaved caller while a request is rejected, on a loaded test machine. */
const MAX_WAIT_MS = 1_000;

let server: ServerProcess;
let caller: Caller;
let httpPort: number;
let prober: Worker;
let directory: string;
let token: string;

const getCaller = contract.registry.getService('agentllm.v1.AccessService')?.method['getCaller'] as DescMethod;
const call = (method: DescMethod, bytes: Buffer) => caller.call(method, bytes, { token });

/** Sends requests in a separate thread, so that the work of the tests does not delay them. */
const PROBER = `
const { parentPort, workerData } = require('node:worker_threads');
const { Agent, get } = require('node:http');
const { readFileSync } = require('node:fs');
const { pid, port } = workerData;
// Without the time for which other processes had the processors, as in test/support/processor.ts.
const runDelay = (path) => {
  try {
    return Number(readFileSync(path, 'utf8').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
};
const moment = () =>
  performance.now() - runDelay('/proc/thread-self/schedstat') - runDelay('/proc/' + pid + '/task/' + pid + '/schedstat');
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
let longest = 0;
const probe = () => {
  const started = moment();
  get({ host: '127.0.0.1', port, path: '/healthz', agent }, (response) => {
    response.resume().on('end', () => {
      longest = Math.max(longest, moment() - started);
      setTimeout(probe, 5);
    });
  }).on('error', () => { longest = Infinity; });
};
probe();
parentPort.on('message', () => { parentPort.postMessage(longest); longest = 0; });
`;

function longestWait(): Promise<number> {
  return new Promise((resolve) => {
    prober.once('message', resolve);
    prober.postMessage('');
  });
}

beforeAll(async () => {
  httpPort = await freePort();
  directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-hostile-')));
  const { stdout } = await agentllm(['token', 'create', '--role', 'admin'], { DATA_DIR: directory }).ended;
  token = /al_[a-z2-7]+_[\w-]+/.exec(stdout)?.[0] ?? '';
  server = await ServerProcess.start('the server', { DATA_DIR: directory, HTTP_ADDRESS: `127.0.0.1:${httpPort}` });
  caller = new Caller(server.port);
  prober = new Worker(PROBER, { eval: true, workerData: { pid: server.pid, port: httpPort } });
  await longestWait();
}, 60_000);

afterEach(async () => {
  expect(await longestWait()).toBeLessThan(MAX_WAIT_MS);
  expect((await call(getCaller, Buffer.alloc(0))).code).toBe('OK');
});

afterAll(async () => {
  await prober.terminate();
  caller.close();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

const headers = () => ({ 'content-type': 'application/json', authorization: `Bearer ${token}` });

/** The size of a status on the wire, in bytes. */
const sizeOf = ({ details, message }: Ending) => (details?.toString('base64').length ?? 0) + encodeURI(message).length;

function violationsOf({ details }: Ending): { field: string; description: string }[] {
  const all = details ? Status.decode(details).details : [];
  return all
    .filter((any) => any.type_url.endsWith('.BadRequest'))
    .flatMap((any) => BadRequest.decode(any.value).field_violations);
}

function expectRejected(ending: Ending, field: string, description: string): void {
  expect(ending.code).toBe('INVALID_ARGUMENT');
  expect(violationsOf(ending)[0]).toMatchObject({ field, description });
  expect(sizeOf(ending)).toBeLessThanOrEqual(limits.maxStatusBytes);
}

const fields = repeatedFields().map((one) => [`${one.method.name} ${one.path}`, one] as const);
const maxOf = (one: RepeatedField) => maxElementsOf(one.fields.at(-1) as never);
const tooMany = (one: RepeatedField) => `must have at most ${maxOf(one)} elements`;
const BYTES = 4 * 1024 * 1024;

describe('gRPC', () => {
  it.each(fields)('rejects %s with one element too many', async (_, one) => {
    for (const packed of [false, true])
      expectRejected(await call(one.method, wireRequest(one, maxOf(one) + 1, { packed })), one.path, tooMany(one));
  });

  it.each(fields)('rejects %s with 4 MB of elements', async (_, one) => {
    for (const packed of [false, true]) {
      const bytes = wireRequest(one, countFor(one, BYTES, { packed }), { packed });
      expect(bytes.length).toBeGreaterThan(0.99 * BYTES);
      expectRejected(await call(one.method, bytes), one.path, tooMany(one));
    }
  });
});

interface HttpRule {
  readonly pattern: { readonly case: string; readonly value: string };
  readonly body: string;
}
const http = contract.registry.getExtension('google.api.http') as DescExtension;
const ruleOf = ({ method }: RepeatedField) => getOption(method, http) as HttpRule;
/** The path with any values for its variables: the body is rejected first. */
const pathOf = (rule: HttpRule) => rule.pattern.value.replace(/\{[^}]*\}/g, '8');

const served = fields.filter(([, one]) => one.method.methodKind === 'unary');
const withBody = served.filter(([, one]) => ruleOf(one).body === '*');
const withQuery = served.filter(([, one]) => ruleOf(one).body === '');

describe('HTTP', () => {
  const post = (one: RepeatedField, body: string) =>
    send(httpPort, ruleOf(one).pattern.case.toUpperCase(), pathOf(ruleOf(one)), {
      body,
      headers: headers(),
    });

  it.each(withBody)('rejects %s with one element too many', async (_, one) => {
    for (const wrong of [false, true]) {
      const response = await post(one, jsonRequest(one, maxOf(one) + 1, { wrong }));
      expect(errorOf(response)).toMatchObject({ code: 400, reason: 'INVALID_FIELDS' });
      expect(errorOf(response).violations[0]).toMatchObject({ field: one.path, description: tooMany(one) });
    }
  });

  it.each(withBody)('rejects %s with 4 MB of elements', async (_, one) => {
    for (const wrong of [false, true]) {
      const bytes = jsonRequest(one, 2, { wrong }).length - jsonRequest(one, 1, { wrong }).length;
      const response = await post(one, jsonRequest(one, Math.floor((BYTES - 100) / bytes), { wrong }));
      expect(errorOf(response)).toMatchObject({ code: 400, reason: 'INVALID_FIELDS' });
      expect(errorOf(response).fields[0]?.replace('[0]', '')).toBe(one.path.replace('[0]', ''));
      expect(response.text.length).toBeLessThanOrEqual(limits.maxStatusBytes);
    }
  });

  it.each(withQuery)('rejects %s with one element too many in the query', async (_, one) => {
    const query = new Array(maxOf(one) + 1).fill(`${one.path}=1`).join('&');
    const response = await send(httpPort, 'GET', `${pathOf(ruleOf(one))}?${query}`, { headers: headers() });
    expect(errorOf(response).violations[0]).toMatchObject({ field: one.path, description: tooMany(one) });
  });
});

describe('a gRPC request', () => {
  const named = (name: string) => fields.find(([, { method }]) => method.name === name)?.[1] as RepeatedField;
  const total = `must have at most ${limits.maxRequestFields} fields, nested ones included`;
  const times = (bytes: readonly number[]) =>
    Buffer.alloc(Math.floor((BYTES - 8) / bytes.length) * bytes.length, Buffer.from(bytes));

  it.each([
    ['an unknown field', [0xa0, 0x06, 0x01]],
    ['an unknown message', [0xa2, 0x06, 0x00]],
    ['a message field that is not repeated', [0x0a, 0x00]],
    ['a string field that is not repeated', [0xaa, 0x01, 0x00]],
    ['an unknown group', [0xa3, 0x06, 0xa4, 0x06]],
  ])('is rejected when its 4 MB repeat %s', async (_, bytes) => {
    expectRejected(await call(named('ListConfigRevisions').method, times(bytes)), 'request', total);
  });

  it('is rejected when it has a group with two million fields', async () => {
    const bytes = Buffer.concat([
      Buffer.from([0xa3, 0x06]),
      times([0x08, 0x01]).subarray(16),
      Buffer.from([0xa4, 0x06]),
    ]);
    expectRejected(await call(named('ListConfigRevisions').method, bytes), 'request', total);
  });

  it('is rejected when its messages are nested two million deep, in fields or in groups', async () => {
    let nested: Buffer = Buffer.alloc(0);
    for (let depth = 0; depth < 5_000; depth++) nested = delimited(1, nested);
    const { method } = named('CreateProvider');
    expect((await call(method, nested)).code).toBe('INVALID_ARGUMENT');
    expect((await call(method, times([0x0b]))).code).toBe('INVALID_ARGUMENT');
  });

  it.each(fields)(
    'with the maximum of wrong elements in %s gets a bounded status that counts the problems it does not list',
    async (_, one) => {
      const ending = await call(one.method, wireRequest(one, maxOf(one)));
      expect(sizeOf(ending)).toBeLessThanOrEqual(limits.maxStatusBytes);
      const [last] = violationsOf(ending).slice(-1);
      const count = Number(/^The request has (\d+) problems/.exec(ending.message)?.[1] ?? 0);
      const listed = violationsOf(ending).length;
      if (count > listed) expect(last?.description).toBe(`and ${count - listed + 1} more problems`);
    },
  );
});

describe('an HTTP body', () => {
  const patch = (body: string | Buffer) => send(httpPort, 'PATCH', '/v1/agents/8', { body, headers: headers() });
  const tooManyKeys = `must have at most ${limits.maxRequestFields} keys and values`;
  const keys = (write: (n: number) => string) => Array.from({ length: 300_000 }, (_, n) => write(n)).join(',');

  it.each([
    ['300 000 unknown keys', `{${keys((n) => `"k${n}":1`)}}`, 'body', tooManyKeys],
    ['300 000 keys in an unknown object', `{"agent":{"x":{${keys((n) => `"k${n}":1`)}}}}`, 'body', tooManyKeys],
    [
      'a list of 2 million in a field that is not repeated',
      `{"agent":[${'1,'.repeat(2_000_000)}1]}`,
      'body',
      tooManyKeys,
    ],
    ['2 million empty lists', `{"x":[${'[],'.repeat(1_300_000)}[]]}`, 'body', tooManyKeys],
  ])('with %s is rejected with INVALID_FIELDS', async (_, body, field, description) => {
    const response = await patch(body);
    expect(errorOf(response)).toMatchObject({
      code: 400,
      reason: 'INVALID_FIELDS',
      violations: [{ field, description }],
    });
  });

  it.each([
    ['2 million nested lists', '['.repeat(2_000_000)],
    ['nested objects', `${'{"agent":'.repeat(400_000)}1${'}'.repeat(400_000)}`],
    ['4 MB of quotes', '"\\"'.repeat(1_300_000)],
    ['4 MB of white space', ' '.repeat(4_000_000)],
  ])('with %s is rejected with MALFORMED_JSON', async (_, body) => {
    expect(errorOf(await patch(body))).toMatchObject({ code: 400, reason: 'MALFORMED_JSON' });
  });

  it('with 9 900 unknown keys is rejected with a bounded list of problems', async () => {
    const response = await patch(`{${Array.from({ length: 9_900 }, (_, n) => `"temperatur${n}":1`).join(',')}}`);
    expect(errorOf(response).message).toMatch(/^The request has 9900 problems: /);
    expect(errorOf(response).violations.at(-1)?.description).toMatch(/^and 98\d\d more problems$/);
    expect(response.text.length).toBeLessThanOrEqual(limits.maxStatusBytes + 2_000);
  });
});
