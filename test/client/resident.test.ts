import { status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { Acknowledger } from '../../src/client/acknowledgements.js';
import { AgentLLMError, type Change, type ClientState, type ClientWarning, connect } from '../../src/client/index.js';
import { freePort } from '../support/ports.js';
import { until } from '../support/until.js';
import {
  absentAgent,
  agent,
  config,
  connectResident,
  model,
  openai,
  startFakeWatch,
  startResident,
} from './fake_watch.js';
import { failed } from './support.js';

/** The AgentLLMError that a function must throw. */
function thrown(run: () => unknown): AgentLLMError {
  try {
    run();
  } catch (error) {
    if (error instanceof AgentLLMError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('connect with agents', () => {
  it('returns immediately and opens a watch of the given agents', async () => {
    const fake = await startFakeWatch();
    const client = connectResident(fake.address, { agents: ['b', 'a', 'a'], clientName: 'desk', clientVersion: '2.0' });
    expect(client.state).toMatchObject({ status: 'CONNECTING', revision: 0n, error: undefined });
    const { request } = await fake.stream(0);
    expect(request).toMatchObject({ all_agents: false, resume_token: '', client_name: 'desk', client_version: '2.0' });
    expect(request.agents.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(request.client_id).toBe(client.clientId);
    expect(client.clientId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4/);
  });

  it("accepts 'all'", async () => {
    const fake = await startFakeWatch();
    connectResident(fake.address, { agents: 'all' });
    expect((await fake.stream(0)).request).toMatchObject({ all_agents: true, agents: [] });
  });

  it.each([
    [{ agents: [] }, /empty/],
    [{ agents: [''] }, /not a valid agent name/],
    [{ agents: [7 as never] }, /not a valid agent name/],
    [{ agents: 'trader' as never }, /list of names/],
    [{ agents: Array.from({ length: 1001 }, (_, at) => `a${at}`) }, /at most 1000/],
    [{ agents: ['a'], clientName: 'x'.repeat(101) }, /at most 100/],
    [{ agents: ['a'], cache: { path: '/nowhere' } as never }, /cache\.key is missing.*encrypt/],
    [{ agents: ['a'], cache: { path: '/nowhere', key: '' } }, /cache\.key is missing/],
    [{ agents: ['a'], cache: { path: '', key: 'x' } }, /cache\.path/],
    [{ agents: ['a'], cache: { path: '/nowhere', key: 'x', maxAgeMs: -1 } }, /maxAgeMs/],
  ])('rejects %j', (options, message) => {
    expect(() => connect({ address: '127.0.0.1:1', ...options })).toThrow(TypeError);
    expect(() => connect({ address: '127.0.0.1:1', ...options })).toThrow(message);
  });

  it('provides the unary calls of every client', async () => {
    const { client } = await startResident();
    expect(Object.keys(client.configs)).toContain('getPrimaryConfig');
    expect(Object.keys(client.watchers).sort()).toEqual(['acknowledgeRevision', 'listWatchers']);
    expect((await client.watchers.listWatchers()).watchers).toEqual([]);
  });

  it('returns a client that is closed when its signal aborts', async () => {
    const closing = new AbortController();
    const fake = await startFakeWatch();
    const client = connectResident(fake.address, { signal: closing.signal });
    const stream = await fake.stream(0);
    closing.abort();
    await until(() => stream.cancelled);
    expect((await failed(client.agents.listAgents())).code).toBe('CANCELLED');
  });
});

describe('resolve', () => {
  it('returns the result of ResolveConfig, and the same object until something changes', async () => {
    const { client, stream } = await startResident([agent('trader', 5), agent('other', 5)], { agents: 'all' });
    const trader = client.agent('trader');
    const first = trader.resolve();
    expect(first).toMatchObject({
      agent: { id: 1, name: 'trader', agent_type: 'trader', substitution_policy: 'SUBSTITUTION_POLICY_ANY' },
      revision: 10n,
      skipped: [],
    });
    const [hop] = first.hops;
    expect(hop).toMatchObject({
      provider: 'openai',
      model_name: 'gpt-4',
      base_url: 'https://api.openai.com/v1',
      key: { source: 'KEY_SOURCE_ENVIRONMENT', variables: ['OPENAI_API_KEY'] },
      price: { source: 'VALUE_SOURCE_MODEL', price: { input_micro_usd_per_million: 30_000_000 } },
    });
    expect(hop?.parameters).toContainEqual({ name: 'temperature', wire_name: 'temperature', value: 0.7 });
    expect(hop?.provenance).toContainEqual({
      field: 'parameters.temperature',
      source: 'VALUE_SOURCE_CONFIG',
      resource: '1',
      path: 'temperature',
      revision: 5,
    });
    expect(trader.resolve()).toBe(first);
    expect(client.agent('trader')).toBe(trader);
    // A change of another agent.
    stream.change(11, [agent('other', 11)]);
    await until(() => client.state.revision === 11n);
    expect(trader.resolve()).toBe(first);
    stream.change(12, [agent('trader', 12, { configs: [config(1, 12, { temperature: 0 })] })]);
    await until(() => client.state.revision === 12n);
    expect(trader.resolve()).not.toBe(first);
    expect(trader.resolve().revision).toBe(12n);
    expect(trader.resolve().hops[0]?.parameters[0]?.value).toBe(0);
  });

  it('reflects changes of the catalogue', async () => {
    const { client, stream } = await startResident();
    const before = client.agent('trader').resolve();
    stream.change(11, [], [model('gpt-4', { max_output_tokens: 100, revision: 11n, price: undefined })]);
    await until(() => client.state.revision === 11n);
    const after = client.agent('trader').resolve();
    expect(after.revision).toBe(11n);
    expect(after.hops[0]?.price).toBeUndefined();
    expect(after).not.toBe(before);
    stream.change(12, [], [{ deleted_model: 'openai/gpt-4' }]);
    await until(() => client.state.revision === 12n);
    expect(
      client
        .agent('trader')
        .resolve()
        .findings.map(({ reason }) => reason),
    ).toContain('FINDING_REASON_UNKNOWN_MODEL');
    stream.change(13, [], [{ deleted_provider: 'openai' }]);
    await until(() => client.state.revision === 13n);
    expect(client.agent('trader').resolve()).toMatchObject({
      hops: [],
      skipped: [{ reason: 'SKIP_REASON_PROVIDER_UNKNOWN' }],
    });
  });

  it('reflects the key states that the service sends', async () => {
    const key = (more: object) => agent('trader', 5, { configs: [config(1, 5, more)] });
    const credential = { name: 'team', provider: 'openai', api_key_state: 'API_KEY_STATE_SET', revision: 3n } as const;
    const { client, stream } = await startResident([key({ credential_name: 'team' })]);
    const currentKey = () => client.agent('trader').resolve().hops[0]?.key;
    // The credential has not arrived, so the environment is the source.
    expect(currentKey()).toMatchObject({ source: 'KEY_SOURCE_ENVIRONMENT' });
    stream.change(11, [], [{ credential }]);
    await until(() => client.state.revision === 11n);
    expect(currentKey()).toEqual({
      source: 'KEY_SOURCE_CREDENTIAL',
      name: 'team',
      variables: [],
      state: 'API_KEY_STATE_SET',
    });
    stream.change(12, [key({ has_api_key_override: true, api_key_state: 'API_KEY_STATE_UNREADABLE' })]);
    await until(() => client.state.revision === 12n);
    expect(currentKey()).toMatchObject({ source: 'KEY_SOURCE_CONFIG', state: 'API_KEY_STATE_UNREADABLE' });
    stream.change(13, [key({ credential_name: 'team' })], [{ deleted_credential: 'team' }]);
    await until(() => client.state.revision === 13n);
    expect(currentKey()).toMatchObject({ source: 'KEY_SOURCE_ENVIRONMENT' });
  });

  it('returns a deeply frozen object', async () => {
    const { client } = await startResident();
    const resolution = client.agent('trader').resolve();
    const unfrozen: string[] = [];
    const visit = (value: unknown, path: string) => {
      if (typeof value !== 'object' || value === null || value instanceof Date) return;
      if (!Object.isFrozen(value)) unfrozen.push(path);
      for (const [key, inner] of Object.entries(value)) visit(inner, `${path}.${key}`);
    };
    visit(resolution, 'resolution');
    visit(client.agent('trader').held, 'held');
    expect(unfrozen).toEqual([]);
    expect(() => Object.assign(resolution.hops[0] ?? {}, { provider: 'mine' })).toThrow(TypeError);
  });

  it('skips the providers in providerDown', async () => {
    const { client } = await startResident();
    const trader = client.agent('trader');
    expect(trader.resolve({ providerDown: ['GPT'] })).toMatchObject({
      hops: [],
      skipped: [{ reason: 'SKIP_REASON_PROVIDER_DOWN', provider: 'openai' }],
    });
    expect(trader.resolve({ providerDown: [] })).toBe(trader.resolve());
    expect(thrown(() => trader.resolve({ providerDown: ['nobody'] }))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_FIELDS',
      violations: [{ field: 'providerDown[0]' }],
    });
  });

  it('fails with the codes and reasons of ResolveConfig', async () => {
    const asleep = agent('asleep', 1, { agent: { is_active: false } });
    const { client, stream } = await startResident([absentAgent('nobody'), asleep, agent('trader', 1)], {
      agents: ['nobody', 'asleep', 'trader', 'trador'],
    });
    expect(thrown(() => client.agent('nobody').resolve())).toMatchObject({
      code: 'NOT_FOUND',
      reason: 'AGENT_NOT_FOUND',
      message: 'No agent has the name "nobody"',
    });
    expect(thrown(() => client.agent('trador').resolve()).metadata).toMatchObject({ suggestion: 'trader' });
    expect(thrown(() => client.agent('asleep').resolve())).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'AGENT_INACTIVE',
      resources: [{ type: 'agent', name: 'asleep' }],
    });
    expect(thrown(() => client.agent('stranger'))).toMatchObject({ code: 'INVALID_ARGUMENT', reason: undefined });
    // The agent is created and then deleted.
    stream.change(11, [agent('nobody', 11)]);
    await until(() => client.state.revision === 11n);
    expect(client.agent('nobody').resolve().hops).toHaveLength(1);
    stream.change(12, [absentAgent('nobody', { id: 1 })]);
    await until(() => client.state.revision === 12n);
    expect(thrown(() => client.agent('nobody').resolve()).reason).toBe('AGENT_NOT_FOUND');
    expect(client.agent('nobody').held).toBeUndefined();
  });

  it('fails with UNAVAILABLE while no state is held', async () => {
    const client = connectResident(`127.0.0.1:${await freePort()}`);
    const trader = client.agent('trader');
    expect(thrown(() => trader.resolve())).toMatchObject({ code: 'UNAVAILABLE', reason: undefined });
    const error = await failed(client.ready(300));
    expect(error).toMatchObject({ code: 'UNAVAILABLE' });
    expect(error.message).toMatch(/^No service is ready at .* within 300 ms: No connection to the service: .*REFUSED/);
    expect(client.state).toMatchObject({ status: 'CONNECTING' });
    expect(client.state.error?.code).toBe('UNAVAILABLE');
    await expect(client.ready(5_000, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('updates the days until a shutdown in a finding without an event for listeners', async () => {
    const DAY = 86_400_000;
    const shutdown = new Date(Date.now() + 2 * DAY + 700);
    const fake = await startFakeWatch();
    const client = connectResident(fake.address);
    const changes: Change[] = [];
    client.on('change', (change) => changes.push(change));
    const going = model('gpt-4', { retires_at: shutdown });
    (await fake.stream(0)).start().snapshot(10, [agent('trader', 1)], [openai(), going]);
    await client.ready();
    const resolution = client.agent('trader').resolve();
    const text = () => client.agent('trader').resolve().findings[0]?.message;
    expect(text()).toMatch(/ will be shut down on \d{4}-\d\d-\d\d, in 3 days; /);
    expect(client.agent('trader').resolve()).toBe(resolution);
    await until(() => client.agent('trader').resolve() !== resolution);
    expect(text()).toMatch(/, in 2 days; /);
    expect(changes).toHaveLength(1);
  });

  it('has the default wire API of the dialect when the service is of an earlier release', async () => {
    const { client } = await startResident([agent('trader', 1)]);
    expect(client.agent('trader').resolve().hops[0]).toMatchObject({
      wire_api: 'WIRE_API_CHAT_COMPLETIONS',
      parameters: expect.arrayContaining([expect.objectContaining({ name: 'temperature' })]),
    });
  });

  it('has the wire API and the facts about the model that the service sends', async () => {
    const responses = openai({ wire_api: 'WIRE_API_RESPONSES' });
    const facts = { context_window_tokens: 9000, supports_prefill: false, supports_forced_tool_choice: true };
    const fake = await startFakeWatch();
    const client = connectResident(fake.address);
    (await fake.stream(0)).start().snapshot(10, [agent('trader', 1)], [responses, model('gpt-4', facts)]);
    await client.ready();
    const [hop] = client.agent('trader').resolve().hops;
    expect(hop).toMatchObject({ wire_api: 'WIRE_API_RESPONSES', model: { ...facts, max_output_tokens: 4096 } });
    expect(hop?.model.supports_vision).toBeUndefined();
  });

  it('uses a scheduled price from its start, as a change for listeners, without a message of the service', async () => {
    const start = Date.now() + 700;
    const next_prices = [
      { input_micro_usd_per_million: 2n, output_micro_usd_per_million: 3n, source: 'b', valid_from: new Date(start) },
      { input_micro_usd_per_million: 4n, source: 'c', valid_from: new Date(start + 400) },
    ];
    const fake = await startFakeWatch();
    const client = connectResident(fake.address);
    const changes = client.changes();
    const priced = { ...model('gpt-4'), next_prices };
    (await fake.stream(0)).start().snapshot(10, [agent('trader', 1)], [openai(), priced]);
    expect((await changes.next()).value).toMatchObject({ snapshot: true });
    const source = () => client.agent('trader').resolve().hops[0]?.price?.price.source;
    expect(source()).toBe('a page');
    expect((await changes.next()).value).toMatchObject({ revision: 10n, catalogue: true, snapshot: false });
    expect(source()).toBe('b');
    expect((await changes.next()).value).toMatchObject({ revision: 10n, catalogue: true, snapshot: false });
    expect(source()).toBe('c');
  });

  it('returns an updated finding when the shutdown date of a model is reached', async () => {
    const retiring = model('gpt-4', { retires_at: new Date(Date.now() + 700) });
    const fake = await startFakeWatch();
    const client = connectResident(fake.address);
    const changes = client.changes();
    (await fake.stream(0)).start().snapshot(10, [agent('trader', 1)], [openai(), retiring]);
    expect((await changes.next()).value).toMatchObject({ snapshot: true });
    const severity = () =>
      client
        .agent('trader')
        .resolve()
        .findings.find(({ reason }) => reason === 'FINDING_REASON_MODEL_RETIRING')?.severity;
    expect(severity()).toBe('SEVERITY_WARNING');
    expect((await changes.next()).value).toMatchObject({ revision: 10n, catalogue: true, snapshot: false });
    expect(severity()).toBe('SEVERITY_ERROR');
  });
});

describe('the held state', () => {
  it('contains the agent and the configs that the service sent', async () => {
    const { client } = await startResident([
      agent('trader', 5, { configs: [config(1, 5), config(2, 5, { enabled: false })] }),
    ]);
    const { held: both } = client.agent('trader');
    expect(both?.agent).toMatchObject({ name: 'trader', revision: 5n });
    expect(both?.configs.map(({ id, enabled }) => [id, enabled])).toEqual([
      [1, true],
      [2, false],
    ]);
  });
});

describe('events', () => {
  it('report the state and changes until their listeners are removed', async () => {
    const fake = await startFakeWatch();
    const client = connectResident(fake.address);
    const states: ClientState[] = [];
    const changes: Change[] = [];
    const traderChanges: Change[] = [];
    const off = client.on('state', (state) => states.push(state));
    const signal = new AbortController();
    client.on('change', (change) => changes.push(change), { signal: signal.signal });
    client.agent('trader').onChange((change) => traderChanges.push(change));
    const stream = await fake.stream(0);
    stream.start().snapshot(10, [agent('trader', 1), absentAgent('other')]);
    await client.ready();
    expect(states).toEqual([client.state]);
    expect(client.state).toMatchObject({ status: 'READY', revision: 10n, replica: 'r1', error: undefined });
    expect(changes).toMatchObject([
      { revision: 10n, agents: ['trader', 'other'], catalogue: true, urgent: false, snapshot: true, cause: undefined },
    ]);
    stream.change(11, [agent('other', 11)]).change(12, [agent('trader', 12, { urgent: true })]);
    await until(() => changes.length === 3);
    expect(changes[2]).toMatchObject({ revision: 12n, agents: ['trader'], urgent: true, merged: 1 });
    expect(changes[2]?.cause).toMatchObject({ actor: 'tester', reason: 'because' });
    expect(traderChanges.map(({ revision }) => revision)).toEqual([10n, 12n]);
    signal.abort();
    off();
    stream.change(13, [agent('trader', 13)]);
    stream.fail(status.UNAVAILABLE);
    await until(() => client.state.status === 'STALE');
    expect(changes).toHaveLength(3);
    expect(states).toHaveLength(1);
    expect(traderChanges).toHaveLength(3);
  });

  it('continue when listeners fail, and each failure causes a warning', async () => {
    const { client, stream } = await startResident();
    const warnings: ClientWarning[] = [];
    const seen: bigint[] = [];
    client.on('warning', (warning) => {
      warnings.push(warning);
      throw new Error('this one too');
    });
    client.on('change', () => {
      throw new Error('thrown');
    });
    client.on('change', () => Promise.reject(new Error('rejected')));
    client.on('change', ({ revision }) => seen.push(revision));
    stream.change(11, [agent('trader', 11)]).change(12, [agent('trader', 12)]);
    await until(() => seen.length === 2 && warnings.length === 4);
    expect(client.state.status).toBe('READY');
    expect(new Set(warnings.map(({ kind }) => kind))).toEqual(new Set(['LISTENER_FAILED']));
    expect(warnings.map(({ message }) => message).sort()).toEqual([
      "A listener of 'change' failed: rejected",
      "A listener of 'change' failed: rejected",
      "A listener of 'change' failed: thrown",
      "A listener of 'change' failed: thrown",
    ]);
    expect(client.warnings).toHaveLength(4);
    expect(() => client.on('change', undefined as never)).toThrow(TypeError);
  });
});

describe('changes', () => {
  it('are iterated in order until the signal aborts, the loop ends or the client is closed', async () => {
    const { client, stream } = await startResident([agent('trader', 1)], { agents: 'all' });
    const signal = new AbortController();
    const [byLoop, bySignal, byClient] = [
      client.changes(),
      client.changes({ signal: signal.signal }),
      client.changes(),
    ];
    const traderChanges = client.agent('trader').changes();
    for (let revision = 11; revision <= 15; revision++)
      stream.change(revision, [agent(revision === 14 ? 'trader' : 'other', revision)]);
    const seen: bigint[] = [];
    for await (const { revision } of byLoop) if (seen.push(revision) === 5) break;
    expect(seen).toEqual([11n, 12n, 13n, 14n, 15n]);
    expect((await byLoop.next()).done).toBe(true);
    expect((await traderChanges.next()).value).toMatchObject({ revision: 14n });
    signal.abort();
    for (let read = 0; read < 5; read++) expect((await bySignal.next()).done).toBe(false);
    expect((await bySignal.next()).done).toBe(true);
    for (let read = 0; read < 5; read++) await byClient.next();
    const last = byClient.next();
    client.close();
    expect((await last).done).toBe(true);
    expect((await client.changes().next()).done).toBe(true);
  });

  it('end immediately when the signal is already aborted', async () => {
    const { client } = await startResident();
    const readers = [
      client.changes({ signal: AbortSignal.abort() }),
      client.agent('trader').changes({ signal: AbortSignal.abort() }),
    ];
    for (const changes of readers) expect(await changes.next()).toEqual({ done: true, value: undefined });
  });

  it('are merged for a slow reader, so that the queue stays bounded', async () => {
    const { client, stream } = await startResident([], { agents: 'all' });
    const slow = client.changes();
    for (let revision = 11; revision <= 1010; revision++)
      stream.change(revision, [agent(`a${revision % 7}`, revision, { urgent: revision === 900 })]);
    await until(() => client.state.revision === 1010n);
    const seen: Change[] = [];
    for await (const change of slow) {
      seen.push(change);
      if (change.revision === 1010n) break;
    }
    expect(seen).toHaveLength(64);
    expect(seen.slice(0, 63).every(({ merged, urgent }) => merged === 1 && !urgent)).toBe(true);
    expect(seen[63]).toMatchObject({ revision: 1010n, merged: 937, urgent: true });
    expect(seen[63]?.agents).toHaveLength(7);
  });
});

describe('acknowledgements', () => {
  it('report the applied revision, and not for every change', async () => {
    const { fake, client, stream } = await startResident();
    await until(() => fake.acknowledged.length === 1);
    expect(fake.acknowledged[0]).toMatchObject({ client_id: client.clientId, revision: 10n });
    for (let revision = 11; revision <= 60; revision++) stream.change(revision, [agent('trader', revision)]);
    await until(() => fake.acknowledged.at(-1)?.revision === 60n);
    expect(fake.acknowledged.length).toBeLessThan(10);
  });

  it('do not affect the client when they fail, and are sent again with the next change', async () => {
    const { fake, client, stream } = await startResident();
    fake.acknowledgementError = status.UNAVAILABLE;
    await until(() => fake.acknowledged.length === 1);
    expect(client.state.status).toBe('READY');
    fake.acknowledgementError = undefined;
    stream.change(11, [agent('trader', 11)]);
    await until(() => fake.acknowledged.length === 2);
    expect(fake.acknowledged[1]?.revision).toBe(11n);
  });

  it('are delayed when the revision contains nothing for the client', async () => {
    const { fake, client, stream } = await startResident();
    const apply = vi.spyOn(Acknowledger.prototype, 'apply');
    onTestFinished(() => apply.mockRestore());
    await until(() => fake.acknowledged.length === 1);
    stream.change(11, [agent('trader', 11)]).bookmark(12);
    await until(() => client.state.revision === 12n);
    expect(apply.mock.calls).toEqual([
      [11n, false],
      [12n, true],
    ]);
  });

  it('are sent once more when the client is closed', async () => {
    const { fake, client, stream } = await startResident();
    await until(() => fake.acknowledged.length === 1);
    stream.change(11, [agent('trader', 11)]);
    await until(() => client.state.revision === 11n);
    await client[Symbol.asyncDispose]();
    expect([...new Set(fake.acknowledged.map(({ revision }) => revision))]).toEqual([10n, 11n]);
    await until(() => stream.cancelled);
  });
});

describe('close', () => {
  it('ends the stream permanently and keeps the held state', async () => {
    const { fake, client, stream } = await startResident();
    const before = client.agent('trader').resolve();
    await client[Symbol.asyncDispose]();
    await until(() => stream.cancelled);
    expect(client.state).toMatchObject({ status: 'STALE', revision: 10n });
    expect(client.state.error).toMatchObject({ code: 'CANCELLED' });
    expect(client.agent('trader').resolve()).toBe(before);
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(fake.streams).toHaveLength(1);
    await client[Symbol.asyncDispose]();
  });

  it('makes a client FAILED that has never held a state', async () => {
    const client = connectResident(`127.0.0.1:${await freePort()}`);
    await client[Symbol.asyncDispose]();
    expect(client.state.status).toBe('FAILED');
    expect((await failed(client.ready(1_000))).code).toBe('CANCELLED');
  });
});
