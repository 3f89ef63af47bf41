import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { connect, type ResidentAgentLLM, type ResidentOptions } from '../../src/client/index.js';
import { type FakeKey, FakeLeases } from './fake_leases.js';
import { agent, CATALOGUE, config, type FakeStream, type FakeWatch, gone, held, openai } from './fake_watch.js';
import { failed, until } from './support.js';

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
const own: ConfigPart = { has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' };
const shared: ConfigPart = { credential_name: 'desk', api_key_state: 'API_KEY_STATE_SET' };
const desk = (revision: number, more = {}) => ({
  credential: {
    name: 'desk',
    provider: 'openai',
    api_key_state: 'API_KEY_STATE_SET' as const,
    revision: BigInt(revision),
  },
  ...more,
});
const trader = (revision: number, more: ConfigPart = own) =>
  agent('trader', revision, { configs: [config(8, revision, more)] });

interface Ground {
  readonly fake: FakeWatch;
  readonly leases: FakeLeases;
  readonly client: ResidentAgentLLM;
  readonly stream: FakeStream;
  readonly key: () => Promise<string | undefined>;
}

/** A client that holds trader, with a key that is stored on its config. */
async function ground(
  { agents = [trader(1)], keys = [{ config_id: 8, key: KEY }], catalogue = [] }: Partial<Given> = {},
  options: Partial<ResidentOptions> = {},
): Promise<Ground> {
  const { fake, client, stream } = await held(agents, options);
  const leases = new FakeLeases(fake);
  leases.keys = keys;
  if (catalogue.length > 0) {
    stream.change(11, [], catalogue);
    leases.revision = 11n;
    await until(() => client.state.revision === 11n);
  }
  return { fake, leases, client, stream, key: () => client.agent('trader').apiKey() };
}
interface Given {
  readonly agents: Parameters<typeof held>[0];
  readonly keys: readonly FakeKey[];
  readonly catalogue: Parameters<FakeStream['change']>[2];
}

const reaches = (client: ResidentAgentLLM, revision: number) =>
  until(() => client.state.revision === BigInt(revision) && client.state.status === 'READY');

describe('apiKey', () => {
  it("is the environment's where nothing is stored", async () => {
    const { client, leases } = await ground({ agents: [trader(1, {})] });
    const handle = client.agent('trader');
    expect(await handle.apiKey()).toBe('sk-of-the-environment');
    expect(await handle.apiKey(handle.resolve().hops[0])).toBe('sk-of-the-environment');
    vi.stubEnv('OPENAI_API_KEY', '');
    expect(await handle.apiKey()).toBeUndefined();
    expect(leases.requests).toEqual([]);
  });

  it('is none where the provider has no variable', async () => {
    const { client } = await ground({
      agents: [trader(1, {})],
      catalogue: [openai({ api_key_env_vars: [], built_in: false })],
    });
    expect(await client.agent('trader').apiKey()).toBeUndefined();
  });

  it('is the stored one where there is one, leased once for all who wait', async () => {
    const { key, leases } = await ground();
    expect(await Promise.all([key(), key(), key()])).toEqual([KEY, KEY, KEY]);
    expect(await key()).toBe(KEY);
    expect(leases.requests).toMatchObject([
      { agent: { id: 1 }, lifetime: { seconds: 600n, nanos: 0 }, min_revision: 10n },
    ]);
    expect(leases.requests[0]?.public_key).toHaveLength(32);
  });

  it('is asked for with the token, and another key pair each time', async () => {
    const { key, leases, stream, client } = await ground({}, { token: 'al_test' });
    await key();
    stream.change(12, [{ ...trader(12), urgent: true }]);
    await reaches(client, 12);
    leases.revision = 12n;
    await key();
    expect(leases.tokens).toEqual(['Bearer al_test', 'Bearer al_test']);
    const [one, two] = leases.requests;
    expect(one?.public_key).not.toEqual(two?.public_key);
    expect(two?.min_revision).toBe(12n);
  });

  it('of a credential is leased too, and each hop has its own', async () => {
    const configs = [
      config(8, 1, { ...own, model_name: 'gpt-4' }),
      config(9, 1, { ...shared, model_name: 'gpt-4o-mini' }),
    ];
    const { client, leases } = await ground({
      agents: [agent('trader', 1, { configs })],
      keys: [
        { config_id: 8, key: KEY },
        { config_id: 9, key: NEWER, credential_name: 'desk' },
      ],
      catalogue: [desk(11)],
    });
    const handle = client.agent('trader');
    const { hops } = handle.resolve();
    expect(await Promise.all(hops.map((hop) => handle.apiKey(hop)))).toEqual([KEY, NEWER]);
    expect(leases.requests).toHaveLength(1);
  });

  it('is the same for pinned runs', async () => {
    const { client, leases } = await ground();
    const run = client.run({ pin: 'run' });
    const handle = run.agent('trader');
    expect(await handle.apiKey(handle.resolve().hops[0])).toBe(KEY);
    expect(await client.agent('trader').apiKey()).toBe(KEY);
    expect(leases.requests).toHaveLength(1);
  });

  it('fails as resolve() does without a hop', async () => {
    const { client, stream, key } = await ground();
    stream.change(12, [gone('trader', { id: 1, urgent: true })]);
    await reaches(client, 12);
    expect(await failed(key())).toMatchObject({ reason: 'AGENT_NOT_FOUND' });
  });

  it('gives up waiting by its signal, and keeps what comes', async () => {
    const { client, leases, key } = await ground();
    let open = () => {};
    leases.gate = new Promise((resolve) => {
      open = resolve;
    });
    const signal = AbortSignal.timeout(50);
    expect(await failed(client.agent('trader').apiKey(undefined, { signal }))).toMatchObject({ code: 'CANCELLED' });
    open();
    expect(await key()).toBe(KEY);
    expect(leases.requests).toHaveLength(1);
  });

  it.each([999, 3_600_001, 1000.5, Number.NaN])('cannot be leased for %s ms', (leaseMs) => {
    expect(() => connect({ address: '127.0.0.1:1', agents: 'all', leaseMs })).toThrow(/leaseMs must be a whole number/);
  });
});

describe('a stored key that cannot be had is an error, never the environment', () => {
  it('when the service cannot read it; it is asked again later', async () => {
    const { key, leases } = await ground({ keys: [] });
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

  it('when the service has none', async () => {
    const { key, leases } = await ground({ keys: [] });
    expect((await failed(key())).message).toMatch(/Config 8 no longer has a stored key, or is disabled; resolve/);
    expect(leases.requests).toHaveLength(1);
  });

  it('when there is no token', async () => {
    const { key, leases } = await ground();
    leases.refuses = [status.UNAUTHENTICATED, 'TOKEN_REQUIRED'];
    const error = await failed(key());
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
    expect(error.message).toMatch(/only to callers with a token: set the option token, or AGENTLLM_TOKEN/);
  });

  it.each([
    [status.PERMISSION_DENIED, 'AGENT_NOT_ALLOWED'],
    [status.FAILED_PRECONDITION, 'ENCRYPTION_KEY_WRONG'],
  ] as const)('when the service refuses it with %i %s', async (code, reason) => {
    const { key, leases } = await ground();
    leases.refuses = [code, reason];
    expect(await failed(key())).toMatchObject({ reason });
    leases.refuses = undefined;
    expect(await key()).toBe(KEY);
  });

  it.each([
    ['of another agent', (lease) => ({ ...lease, agent_id: 2 }), 'DATA_LOSS'],
    ['of another config', (lease) => ({ ...lease, config_id: 9 }), 'DATA_LOSS'],
    ['for another time', (lease) => ({ ...lease, lifetime: { seconds: 500n, nanos: 0 } }), 'DATA_LOSS'],
    ['for another origin than was sealed', (lease) => ({ ...lease, origin: 'https://evil.example' }), 'DATA_LOSS'],
    ['that was changed', (lease) => ({ ...lease, ciphertext: Buffer.alloc(30) }), 'DATA_LOSS'],
    ['without what was encapsulated', (lease) => ({ ...lease, encapsulated_key: Buffer.alloc(0) }), 'DATA_LOSS'],
  ] as [string, FakeLeases['forge'], string][])('when the lease is one %s', async (_, forge, code) => {
    const { key, leases } = await ground();
    leases.forge = forge;
    expect(await failed(key())).toMatchObject({ code });
  });

  it.each([{ provider: 'claude' }, { origin: 'https://evil.example' }])('when it is for %o', async (other) => {
    const { key } = await ground({ keys: [{ config_id: 8, key: KEY, ...other }] });
    const error = await failed(key());
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(error.message).toMatch(/is for .*, not for openai at https:\/\/api.openai.com; resolve again/);
  });
});

describe('what is leased is dropped at once', () => {
  /** Leases a key, lets something happen at revision 12, and gives the key that is there then. */
  async function nextKey(
    given: Partial<Given>,
    happen: (ground: Ground) => void,
  ): Promise<[string | undefined, number]> {
    const all = await ground(given);
    expect(await all.key()).toBe(KEY);
    all.leases.keys = all.leases.keys.map((one) => ({ ...one, key: NEWER }));
    all.leases.revision = 12n;
    happen(all);
    await reaches(all.client, 12);
    return [await all.key(), all.leases.requests.length];
  }
  const ofCredential = {
    agents: [trader(1, shared)],
    keys: [{ config_id: 8, key: KEY, credential_name: 'desk' }],
    catalogue: [desk(11)],
  };

  it('when the agent has an urgent change', async () => {
    expect(await nextKey({}, ({ stream }) => stream.change(12, [{ ...trader(12), urgent: true }]))).toEqual([NEWER, 2]);
  });

  it('when its credential has one', async () => {
    expect(await nextKey(ofCredential, ({ stream }) => stream.change(12, [], [desk(12, { urgent: true })]))).toEqual([
      NEWER,
      2,
    ]);
  });

  const anotherChange: ConfigPart = { temperature: 0.1 };
  const other = { ...desk(12, { urgent: true }), credential: { ...desk(12).credential, name: 'other' } };
  it.each<[string, Partial<Given>, (ground: Ground) => void]>([
    ['another change of the agent', {}, ({ stream }) => stream.change(12, [trader(12, { ...own, ...anotherChange })])],
    [
      'another change of an agent with a credential',
      ofCredential,
      ({ stream }) => stream.change(12, [trader(12, { ...shared, ...anotherChange })]),
    ],
    ['an urgent change of another credential', ofCredential, ({ stream }) => stream.change(12, [], [other])],
    ['an urgent change of a credential that it does not use', {}, ({ stream }) => stream.change(12, [], [other])],
    ['a bookmark', {}, ({ stream }) => stream.bookmark(12)],
  ])('but not by %s', async (_, given, happen) => expect(await nextKey(given, happen)).toEqual([KEY, 1]));

  it('when its config is switched off, or gone', async () => {
    for (const configs of [[config(8, 12, { ...own, enabled: false })], []]) {
      const { client, leases, stream } = await ground();
      const handle = client.agent('trader');
      const [hop] = handle.resolve().hops;
      await handle.apiKey(hop);
      leases.keys = [];
      stream.change(12, [agent('trader', 12, { configs })]);
      leases.revision = 12n;
      await reaches(client, 12);
      expect((await failed(handle.apiKey(hop))).message).toMatch(/no longer has a stored key, or is disabled/);
    }
  });

  it('after a gap in which its row was changed, and only then', async () => {
    const again = (revision: number) => async (all: Ground) => {
      all.stream.fail(status.OUT_OF_RANGE, 'REVISION_COMPACTED');
      (await all.fake.stream(1)).start().snapshot(12, [trader(revision)]);
    };
    expect(await nextKey({}, again(11))).toEqual([NEWER, 2]);
    expect(await nextKey({}, again(10))).toEqual([KEY, 1]);
    const credential = (revision: number) => async (all: Ground) => {
      all.stream.fail(status.OUT_OF_RANGE, 'REVISION_COMPACTED');
      (await all.fake.stream(1)).start().snapshot(12, [trader(1, shared)], [...CATALOGUE, desk(revision)]);
    };
    expect(await nextKey(ofCredential, credential(12))).toEqual([NEWER, 2]);
    expect(await nextKey(ofCredential, credential(11))).toEqual([KEY, 1]);
  });

  it('when the store is another one', async () => {
    const happen = async ({ fake, stream }: Ground) => {
      stream.fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
      (await fake.stream(1)).start().snapshot(12, [trader(1)]);
    };
    expect(await nextKey({}, happen)).toEqual([NEWER, 2]);
  });

  it('while it is under way', async () => {
    const { client, key, leases, stream } = await ground();
    let open = () => {};
    leases.gate = new Promise((resolve) => {
      open = resolve;
    });
    const waiting = key();
    await until(() => leases.requests.length === 1);
    stream.change(12, [{ ...trader(12), urgent: true }]);
    await reaches(client, 12);
    leases.keys = [{ config_id: 8, key: NEWER }];
    leases.revision = 12n;
    open();
    expect(await waiting).toBe(NEWER);
    expect(leases.requests.map(({ min_revision }) => min_revision)).toEqual([10n, 12n]);
  });

  it('while it is under way, when the store is another one', async () => {
    const { client, fake, key, leases, stream } = await ground();
    let open = () => {};
    leases.gate = new Promise((resolve) => {
      open = resolve;
    });
    const waiting = key();
    await until(() => leases.requests.length === 1);
    stream.fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
    // Its revisions are smaller: nothing but the change of the store says that the lease is of another one.
    (await fake.stream(1)).start().snapshot(5, [trader(1)]);
    await reaches(client, 5);
    leases.keys = [{ config_id: 8, key: NEWER }];
    leases.revision = 5n;
    open();
    expect(await waiting).toBe(NEWER);
    expect(leases.requests.map(({ min_revision }) => min_revision)).toEqual([10n, 5n]);
  });

  it('and a lease that is newer than the change is not', async () => {
    const { client, key, leases, stream } = await ground();
    leases.revision = 12n;
    await key();
    stream.change(12, [{ ...trader(12), urgent: true }]);
    await reaches(client, 12);
    expect(await key()).toBe(KEY);
    expect(leases.requests).toHaveLength(1);
  });

  it('when the client is closed', async () => {
    const { client, key, leases } = await ground();
    await key();
    leases.gate = new Promise(() => {});
    client.close();
    expect(await failed(key())).toMatchObject({ code: 'CANCELLED', message: 'This client was closed' });
  });

  it('when the client is closed while it is under way', async () => {
    const { client, key, leases } = await ground();
    leases.gate = new Promise(() => {});
    const waiting = failed(key());
    await until(() => leases.requests.length === 1);
    await client[Symbol.asyncDispose]();
    expect(await waiting).toMatchObject({ code: 'CANCELLED', message: 'This client was closed' });
  });
});

describe('a lease', () => {
  it('is renewed ahead while it is used', async () => {
    const { key, leases } = await ground({}, { leaseMs: 1_000 });
    await key();
    await key();
    leases.keys = [{ config_id: 8, key: NEWER }];
    await until(() => leases.requests.length === 2, 1_000);
    await sleep(50);
    expect(await key()).toBe(NEWER);
    expect(leases.requests[0]?.lifetime).toEqual({ seconds: 1n, nanos: 0 });
  });

  it('ends when nobody uses it', async () => {
    const { key, leases } = await ground({}, { leaseMs: 1_000 });
    await key();
    await sleep(1_100);
    expect(leases.requests).toHaveLength(1);
    expect(await key()).toBe(KEY);
    expect(leases.requests).toHaveLength(2);
  });

  it('is renewed when it is used late, too', async () => {
    const { key, leases } = await ground({}, { leaseMs: 1_000 });
    await key();
    await sleep(850);
    expect(await key()).toBe(KEY);
    await until(() => leases.requests.length === 2, 150);
  });

  it('serves while the service is away, until its time is over', async () => {
    const { client, fake, key } = await ground({}, { leaseMs: 1_500, retry: false });
    await key();
    // The lease counts from its request, which may have been later than the call on a busy machine.
    const leased = performance.now();
    fake.stop();
    await until(() => client.state.status === 'STALE');
    expect(await key()).toBe(KEY);
    await until(() => client.warnings.some(({ kind }) => kind === 'LEASE_NOT_RENEWED'));
    expect(await key()).toBe(KEY);
    await sleep(Math.max(0, 1_550 - (performance.now() - leased)));
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
    ['that nobody sets', performance],
    ['of a machine that slept', Date],
  ] as const)('is over by the clock %s', async (_, clock) => {
    const { key, leases } = await ground({}, { leaseMs: 60_000 });
    await key();
    const now = clock.now.bind(clock);
    let offset = 59_000;
    vi.spyOn(clock as { now(): number }, 'now').mockImplementation(() => now() + offset);
    expect(await key()).toBe(KEY);
    await until(() => leases.requests.length === 2);
    leases.refuses = [status.PERMISSION_DENIED, 'PERMISSION_DENIED'];
    offset = 120_000;
    expect(await failed(key())).toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  it('counts from when it was asked for', async () => {
    const { key, leases } = await ground({}, { leaseMs: 1_000 });
    leases.gate = sleep(700);
    await key();
    leases.gate = Promise.resolve();
    await sleep(350);
    await key();
    expect(leases.requests).toHaveLength(2);
  });

  it('that comes when its time is over already is none', async () => {
    const { key, leases } = await ground({}, { leaseMs: 1_000 });
    leases.gate = sleep(1_100);
    expect(await key()).toBe(KEY);
    expect(leases.requests).toHaveLength(2);
  });

  it('that is asked for ahead in vain is asked for again by who waits', async () => {
    const { key, leases } = await ground({}, { leaseMs: 1_000 });
    await key();
    await key();
    let open = () => {};
    leases.gate = new Promise((resolve) => {
      open = resolve;
    });
    await until(() => leases.requests.length === 2);
    await sleep(250);
    const waiting = key();
    leases.refuses = [status.UNAVAILABLE];
    open();
    await sleep(50);
    leases.refuses = undefined;
    expect(await waiting).toBe(KEY);
  });

  it('is in nothing that is printed, serialized or written', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-cache-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const cache = { path: join(directory, 'held'), key: 'k' };
    const { client, key } = await ground({}, { cache, token: 'al_aaaaaaaaaa_CANARY' });
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
