import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { connect, type ResidentAgentLLM, type ResidentOptions } from '../../src/client/index.js';
import { until } from '../support/until.js';
import { type FakeKey, FakeLeases } from './fake_leases.js';
import {
  absentAgent,
  agent,
  CATALOGUE,
  config,
  type FakeStream,
  type FakeWatch,
  openai,
  startResident,
} from './fake_watch.js';
import { failed, useFakeClock } from './support.js';

const KEY = 'sk-CANARY-leased-1';
const NEWER = 'sk-CANARY-leased-2';

beforeEach(() => {
  vi.stubEnv('OPENAI_API_KEY', 'sk-of-the-environment');
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

type ConfigPart = Parameters<typeof config>[2];
const withConfigKey: ConfigPart = { has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' };
const withCredential: ConfigPart = { credential_name: 'desk', api_key_state: 'API_KEY_STATE_SET' };
const deskCredential = (revision: number, more = {}) => ({
  credential: {
    name: 'desk',
    provider: 'openai',
    api_key_state: 'API_KEY_STATE_SET' as const,
    revision: BigInt(revision),
  },
  ...more,
});
const trader = (revision: number, more: ConfigPart = withConfigKey) =>
  agent('trader', revision, { configs: [config(8, revision, more)] });

interface Context {
  readonly fake: FakeWatch;
  readonly leases: FakeLeases;
  readonly client: ResidentAgentLLM;
  readonly stream: FakeStream;
  readonly key: () => Promise<string | undefined>;
}

/** A client that holds trader, whose config has a stored key by default. */
async function setup(
  { agents = [trader(1)], keys = [{ config_id: 8, key: KEY }], catalogue = [] }: Partial<SetupInput> = {},
  options: Partial<ResidentOptions> = {},
): Promise<Context> {
  const { fake, client, stream } = await startResident(agents, options);
  const leases = new FakeLeases(fake);
  leases.keys = keys;
  if (catalogue.length > 0) {
    stream.change(11, [], catalogue);
    leases.revision = 11n;
    await until(() => client.state.revision === 11n);
  }
  return { fake, leases, client, stream, key: () => client.agent('trader').apiKey() };
}
interface SetupInput {
  readonly agents: Parameters<typeof startResident>[0];
  readonly keys: readonly FakeKey[];
  readonly catalogue: Parameters<FakeStream['change']>[2];
}

const untilRevision = (client: ResidentAgentLLM, revision: number) =>
  until(() => client.state.revision === BigInt(revision) && client.state.status === 'READY');

describe('apiKey', () => {
  it('is read from the environment when no key is stored', async () => {
    const { client, leases } = await setup({ agents: [trader(1, {})] });
    const handle = client.agent('trader');
    expect(await handle.apiKey()).toBe('sk-of-the-environment');
    expect(await handle.apiKey(handle.resolve().hops[0])).toBe('sk-of-the-environment');
    vi.stubEnv('OPENAI_API_KEY', '');
    expect(await handle.apiKey()).toBeUndefined();
    expect(leases.requests).toEqual([]);
  });

  it('is undefined when the provider has no environment variable', async () => {
    const { client } = await setup({
      agents: [trader(1, {})],
      catalogue: [openai({ api_key_env_vars: [], built_in: false })],
    });
    expect(await client.agent('trader').apiKey()).toBeUndefined();
  });

  it('is the stored key when there is one, leased once for concurrent callers', async () => {
    const { key, leases } = await setup();
    expect(await Promise.all([key(), key(), key()])).toEqual([KEY, KEY, KEY]);
    expect(await key()).toBe(KEY);
    expect(leases.requests).toMatchObject([
      { agent: { id: 1 }, lifetime: { seconds: 600n, nanos: 0 }, min_revision: 10n },
    ]);
    expect(leases.requests[0]?.public_key).toHaveLength(32);
  });

  it('is requested with the token, and with a new key pair for each lease', async () => {
    const { key, leases, stream, client } = await setup({}, { token: 'al_test' });
    await key();
    stream.change(12, [{ ...trader(12), urgent: true }]);
    await untilRevision(client, 12);
    leases.revision = 12n;
    await key();
    expect(leases.tokens).toEqual(['Bearer al_test', 'Bearer al_test']);
    const [first, second] = leases.requests;
    expect(first?.public_key).not.toEqual(second?.public_key);
    expect(second?.min_revision).toBe(12n);
  });

  it('is leased from a credential as well, and each hop has its own key', async () => {
    const configs = [
      config(8, 1, { ...withConfigKey, model_name: 'gpt-4' }),
      config(9, 1, { ...withCredential, model_name: 'gpt-4o-mini' }),
    ];
    const { client, leases } = await setup({
      agents: [agent('trader', 1, { configs })],
      keys: [
        { config_id: 8, key: KEY },
        { config_id: 9, key: NEWER, credential_name: 'desk' },
      ],
      catalogue: [deskCredential(11)],
    });
    const handle = client.agent('trader');
    const { hops } = handle.resolve();
    expect(await Promise.all(hops.map((hop) => handle.apiKey(hop)))).toEqual([KEY, NEWER]);
    expect(leases.requests).toHaveLength(1);
  });

  it('is the same for pinned runs', async () => {
    const { client, leases } = await setup();
    const run = client.run({ pin: 'run' });
    const handle = run.agent('trader');
    expect(await handle.apiKey(handle.resolve().hops[0])).toBe(KEY);
    expect(await client.agent('trader').apiKey()).toBe(KEY);
    expect(leases.requests).toHaveLength(1);
  });

  it('fails like resolve() when there is no hop', async () => {
    const { client, stream, key } = await setup();
    stream.change(12, [absentAgent('trader', { id: 1, urgent: true })]);
    await untilRevision(client, 12);
    expect(await failed(key())).toMatchObject({ reason: 'AGENT_NOT_FOUND' });
  });

  it('is CANCELLED when its signal aborts, and the lease that arrives later is kept', async () => {
    const { client, leases, key } = await setup();
    const respond = leases.holdResponses();
    const signal = AbortSignal.timeout(50);
    expect(await failed(client.agent('trader').apiKey(undefined, { signal }))).toMatchObject({ code: 'CANCELLED' });
    respond();
    expect(await key()).toBe(KEY);
    expect(leases.requests).toHaveLength(1);
  });

  it.each([999, 3_600_001, 1000.5, Number.NaN])('cannot be leased for %s ms', (leaseMs) => {
    expect(() => connect({ address: '127.0.0.1:1', agents: 'all', leaseMs })).toThrow(/leaseMs must be a whole number/);
  });
});

describe('a stored key that is unavailable, with a key in the environment', () => {
  it('is an error when the service cannot decrypt it, and is requested again after 5 s', async () => {
    const { key, leases } = await setup({ keys: [] });
    leases.unreadable = [8];
    const error = await failed(key());
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(error.message).toMatch(/cannot decrypt the stored key of config 8 .*set the key again/);
    await failed(key());
    expect(leases.requests).toHaveLength(1);
    leases.keys = [{ config_id: 8, key: KEY }];
    const { now } = performance;
    const before = now.call(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now.call(performance) + 6_000);
    expect(performance.now()).toBeGreaterThan(before + 5_000);
    expect(await key()).toBe(KEY);
  });

  it('is an error when the service has no key for the config', async () => {
    const { key, leases } = await setup({ keys: [] });
    expect((await failed(key())).message).toMatch(/Config 8 no longer has a stored key, or is disabled; resolve/);
    expect(leases.requests).toHaveLength(1);
  });

  it('is an error when the client has no token', async () => {
    const { key, leases } = await setup();
    leases.error = [status.UNAUTHENTICATED, 'TOKEN_REQUIRED'];
    const error = await failed(key());
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
    expect(error.message).toMatch(/only to callers with a token: set the option token, or AGENTLLM_TOKEN/);
  });

  it.each([
    [status.PERMISSION_DENIED, 'AGENT_NOT_ALLOWED'],
    [status.FAILED_PRECONDITION, 'ENCRYPTION_KEY_WRONG'],
  ] as const)('is an error when the service rejects the request with %i %s', async (code, reason) => {
    const { key, leases } = await setup();
    leases.error = [code, reason];
    expect(await failed(key())).toMatchObject({ reason });
    leases.error = undefined;
    expect(await key()).toBe(KEY);
  });

  it.each([
    ['of another agent', (lease) => ({ ...lease, agent_id: 2 }), 'DATA_LOSS'],
    ['of another config', (lease) => ({ ...lease, config_id: 9 }), 'DATA_LOSS'],
    ['for another lifetime', (lease) => ({ ...lease, lifetime: { seconds: 500n, nanos: 0 } }), 'DATA_LOSS'],
    ['for another origin than the sealed one', (lease) => ({ ...lease, origin: 'https://evil.example' }), 'DATA_LOSS'],
    ['with a modified ciphertext', (lease) => ({ ...lease, ciphertext: Buffer.alloc(30) }), 'DATA_LOSS'],
    ['without an encapsulated key', (lease) => ({ ...lease, encapsulated_key: Buffer.alloc(0) }), 'DATA_LOSS'],
  ] as [string, FakeLeases['tamper'], string][])('is an error when the lease is %s', async (_, tamper, code) => {
    const { key, leases } = await setup();
    leases.tamper = tamper;
    expect(await failed(key())).toMatchObject({ code });
  });

  it.each([{ provider: 'claude' }, { origin: 'https://evil.example' }])(
    'is an error when it is leased for %o',
    async (other) => {
      const { key } = await setup({ keys: [{ config_id: 8, key: KEY, ...other }] });
      const error = await failed(key());
      expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
      expect(error.message).toMatch(/is for .*, not for openai at https:\/\/api.openai.com; resolve again/);
    },
  );
});

describe('a leased key', () => {
  /** Leases a key, causes an event at revision 12, and returns the key after it and the number of lease requests. */
  async function nextKey(
    input: Partial<SetupInput>,
    event: (context: Context) => void,
  ): Promise<[string | undefined, number]> {
    const context = await setup(input);
    expect(await context.key()).toBe(KEY);
    context.leases.keys = context.leases.keys.map((one) => ({ ...one, key: NEWER }));
    context.leases.revision = 12n;
    event(context);
    await untilRevision(context.client, 12);
    return [await context.key(), context.leases.requests.length];
  }
  const ofCredential = {
    agents: [trader(1, withCredential)],
    keys: [{ config_id: 8, key: KEY, credential_name: 'desk' }],
    catalogue: [deskCredential(11)],
  };

  it('is dropped immediately when the agent has an urgent change', async () => {
    expect(await nextKey({}, ({ stream }) => stream.change(12, [{ ...trader(12), urgent: true }]))).toEqual([NEWER, 2]);
  });

  it('is dropped immediately when its credential has an urgent change', async () => {
    expect(
      await nextKey(ofCredential, ({ stream }) => stream.change(12, [], [deskCredential(12, { urgent: true })])),
    ).toEqual([NEWER, 2]);
  });

  const anotherChange: ConfigPart = { temperature: 0.1 };
  const other = {
    ...deskCredential(12, { urgent: true }),
    credential: { ...deskCredential(12).credential, name: 'other' },
  };
  it.each<[string, Partial<SetupInput>, (context: Context) => void]>([
    [
      'another change of the agent',
      {},
      ({ stream }) => stream.change(12, [trader(12, { ...withConfigKey, ...anotherChange })]),
    ],
    [
      'another change of an agent with a credential',
      ofCredential,
      ({ stream }) => stream.change(12, [trader(12, { ...withCredential, ...anotherChange })]),
    ],
    ['an urgent change of another credential', ofCredential, ({ stream }) => stream.change(12, [], [other])],
    ['an urgent change of a credential that it does not use', {}, ({ stream }) => stream.change(12, [], [other])],
    ['a bookmark', {}, ({ stream }) => stream.bookmark(12)],
  ])('is kept after %s', async (_, input, event) => expect(await nextKey(input, event)).toEqual([KEY, 1]));

  it('is dropped immediately when its config is disabled or deleted', async () => {
    for (const configs of [[config(8, 12, { ...withConfigKey, enabled: false })], []]) {
      const { client, leases, stream } = await setup();
      const handle = client.agent('trader');
      const [hop] = handle.resolve().hops;
      await handle.apiKey(hop);
      leases.keys = [];
      stream.change(12, [agent('trader', 12, { configs })]);
      leases.revision = 12n;
      await untilRevision(client, 12);
      expect((await failed(handle.apiKey(hop))).message).toMatch(/no longer has a stored key, or is disabled/);
    }
  });

  it('is dropped after a gap only when its row was changed in the gap', async () => {
    const again = (revision: number) => async (context: Context) => {
      context.stream.fail(status.OUT_OF_RANGE, 'REVISION_COMPACTED');
      (await context.fake.stream(1)).start().snapshot(12, [trader(revision)]);
    };
    expect(await nextKey({}, again(11))).toEqual([NEWER, 2]);
    expect(await nextKey({}, again(10))).toEqual([KEY, 1]);
    const credential = (revision: number) => async (context: Context) => {
      context.stream.fail(status.OUT_OF_RANGE, 'REVISION_COMPACTED');
      (await context.fake.stream(1))
        .start()
        .snapshot(12, [trader(1, withCredential)], [...CATALOGUE, deskCredential(revision)]);
    };
    expect(await nextKey(ofCredential, credential(12))).toEqual([NEWER, 2]);
    expect(await nextKey(ofCredential, credential(11))).toEqual([KEY, 1]);
  });

  it('is dropped immediately when the store has changed', async () => {
    const event = async ({ fake, stream }: Context) => {
      stream.fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
      (await fake.stream(1)).start().snapshot(12, [trader(1)]);
    };
    expect(await nextKey({}, event)).toEqual([NEWER, 2]);
  });

  it('is requested again when an urgent change arrives during the request', async () => {
    const { client, key, leases, stream } = await setup();
    const respond = leases.holdResponses();
    const waiting = key();
    await until(() => leases.requests.length === 1);
    stream.change(12, [{ ...trader(12), urgent: true }]);
    await untilRevision(client, 12);
    leases.keys = [{ config_id: 8, key: NEWER }];
    leases.revision = 12n;
    respond();
    expect(await waiting).toBe(NEWER);
    expect(leases.requests.map(({ min_revision }) => min_revision)).toEqual([10n, 12n]);
  });

  it('is requested again when the store changes during the request', async () => {
    const { client, fake, key, leases, stream } = await setup();
    const respond = leases.holdResponses();
    const waiting = key();
    await until(() => leases.requests.length === 1);
    stream.fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
    // The revisions of the new store are lower: only the change of the store shows that the lease is of the old one.
    (await fake.stream(1)).start().snapshot(5, [trader(1)]);
    await untilRevision(client, 5);
    leases.keys = [{ config_id: 8, key: NEWER }];
    leases.revision = 5n;
    respond();
    expect(await waiting).toBe(NEWER);
    expect(leases.requests.map(({ min_revision }) => min_revision)).toEqual([10n, 5n]);
  });

  it('is kept when its lease is newer than the urgent change', async () => {
    const { client, key, leases, stream } = await setup();
    leases.revision = 12n;
    await key();
    stream.change(12, [{ ...trader(12), urgent: true }]);
    await untilRevision(client, 12);
    expect(await key()).toBe(KEY);
    expect(leases.requests).toHaveLength(1);
  });

  it('is dropped when the client is closed', async () => {
    const { client, key, leases } = await setup();
    await key();
    leases.holdResponses();
    client.close();
    expect(await failed(key())).toMatchObject({ code: 'CANCELLED', message: 'This client was closed' });
  });

  it('is CANCELLED when the client is closed during the request', async () => {
    const { client, key, leases } = await setup();
    leases.holdResponses();
    const waiting = failed(key());
    await until(() => leases.requests.length === 1);
    await client[Symbol.asyncDispose]();
    expect(await waiting).toMatchObject({ code: 'CANCELLED', message: 'This client was closed' });
  });
});

describe('a lease', () => {
  const LEASE_MS = 10_000;

  /** A client whose leases expire only when the test advances the clock. */
  async function setupLease(options: Partial<ResidentOptions> = {}): Promise<Context> {
    const context = await setup({}, { leaseMs: LEASE_MS, ...options });
    useFakeClock();
    return context;
  }

  /** Time without timers: the keepalive and the deadline of the call in progress do not end it. */
  const passDuringCall = (ms: number) => vi.setSystemTime(Date.now() + ms);

  it('is renewed in advance while it is used', async () => {
    const { key, leases } = await setupLease();
    await key();
    await key();
    leases.keys = [{ config_id: 8, key: NEWER }];
    vi.advanceTimersByTime(LEASE_MS * 0.8);
    await until(() => leases.requests.length === 2);
    await until(async () => (await key()) === NEWER);
    expect(leases.requests.map(({ lifetime }) => lifetime)).toEqual(Array(2).fill({ seconds: 10n, nanos: 0 }));
  });

  it('expires when it is not used', async () => {
    const { key, leases } = await setupLease();
    await key();
    vi.advanceTimersByTime(LEASE_MS);
    leases.keys = [{ config_id: 8, key: NEWER }];
    expect(await key()).toBe(NEWER);
    expect(leases.requests).toHaveLength(2);
  });

  it('is renewed when it is used late in its lifetime', async () => {
    const { key, leases } = await setupLease();
    await key();
    vi.advanceTimersByTime(LEASE_MS * 0.85);
    leases.keys = [{ config_id: 8, key: NEWER }];
    expect(await key()).toBe(KEY);
    await until(() => leases.requests.length === 2);
    await until(async () => (await key()) === NEWER);
  });

  it('provides the key while the service is unavailable, until it expires', async () => {
    const { client, fake, key } = await setupLease({ retry: false });
    await key();
    fake.stop();
    await until(() => client.state.status === 'STALE');
    expect(await key()).toBe(KEY);
    vi.advanceTimersByTime(LEASE_MS * 0.8);
    await until(() => client.warnings.some(({ kind }) => kind === 'LEASE_NOT_RENEWED'));
    expect(await key()).toBe(KEY);
    vi.advanceTimersByTime(LEASE_MS * 0.2);
    const error = await failed(key());
    expect(error.code).toBe('UNAVAILABLE');
    expect(error.message).toMatch(
      /^The leased keys of agent "trader" expired at .*Z and could not be renewed: No conn/,
    );
    expect(client.warnings.filter(({ kind }) => kind === 'LEASE_NOT_RENEWED')).toHaveLength(1);
    expect(client.warnings[0]?.message).toMatch(
      /The leased keys of agent "trader" expire at .*Z and could not be renewed/,
    );
  });

  it.each([
    ['monotonic clock', performance],
    ['wall clock, as after a suspend', Date],
  ] as const)('expires by the %s', async (_, clock) => {
    const { key, leases } = await setup({}, { leaseMs: 60_000 });
    await key();
    const now = clock.now.bind(clock);
    let offset = 59_000;
    vi.spyOn(clock as { now(): number }, 'now').mockImplementation(() => now() + offset);
    expect(await key()).toBe(KEY);
    await until(() => leases.requests.length === 2);
    leases.error = [status.PERMISSION_DENIED, 'PERMISSION_DENIED'];
    offset = 120_000;
    expect(await failed(key())).toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  it('has a lifetime that starts at the request', async () => {
    const { key, leases } = await setupLease();
    const respond = leases.holdResponses();
    const waiting = key();
    await until(() => leases.requests.length === 1);
    passDuringCall(LEASE_MS * 0.7);
    respond();
    await waiting;
    vi.advanceTimersByTime(LEASE_MS * 0.3);
    await key();
    expect(leases.requests).toHaveLength(2);
  });

  it('is discarded when it has expired on arrival', async () => {
    const { key, leases } = await setupLease();
    const respond = leases.holdResponses();
    const waiting = key();
    await until(() => leases.requests.length === 1);
    passDuringCall(LEASE_MS);
    respond();
    expect(await waiting).toBe(KEY);
    expect(leases.requests).toHaveLength(2);
  });

  it('is requested again for a waiting caller when its renewal fails', async () => {
    const { key, leases } = await setupLease();
    await key();
    await key();
    leases.error = [status.UNAVAILABLE];
    const respond = leases.holdResponses();
    vi.advanceTimersByTime(LEASE_MS * 0.8);
    await until(() => leases.requests.length === 2);
    leases.error = undefined;
    // The lease expires while its renewal is in progress.
    passDuringCall(LEASE_MS * 0.2);
    const waiting = key();
    respond();
    expect(await waiting).toBe(KEY);
    expect(leases.requests).toHaveLength(3);
  });

  it('is in nothing that is printed, serialized or written to a file', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-cache-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const cache = { path: join(directory, 'held'), key: 'k' };
    const { client, key } = await setup({}, { cache, token: 'al_aaaaaaaaaa_CANARY' });
    const run = client.run();
    expect(await key()).toBe(KEY);
    const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);
    for (const one of [client, client.agent('trader'), run, run.agent('trader'), client.state, client.warnings]) {
      const seen = inspect(one, { showHidden: true, depth: Number.POSITIVE_INFINITY, getters: true });
      expect(seen).not.toContain('CANARY');
      expect(inspect(one)).not.toContain('CANARY');
      try {
        expect(JSON.stringify(one, plain) ?? '').not.toContain('CANARY');
      } catch (error) {
        expect(String(error)).toContain('circular');
      }
    }
    await client[Symbol.asyncDispose]();
    expect((await readFile(cache.path)).toString('latin1')).not.toContain('CANARY');
  });
});
