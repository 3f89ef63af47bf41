import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Replay, readEvents } from '../../src/feed/replay.js';
import { limits } from '../../src/limits.js';
import { compactHistory } from '../../src/store/history/compaction.js';
import { renewStoreIdentity } from '../../src/store/maintenance/store_identity.js';
import { GPT4, newAgent, newConfig, newModel, newProvider, present, status } from '../api/handlers/support.js';
import { startPostgres } from '../support/postgres.js';
import { unique } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { engines, startWatchBackend, useWatchBackend, type WatchBackend } from './backend.js';
import { type RecordedWatch, withLimits } from './support.js';

const INVALID = [status.INVALID_ARGUMENT, 'INVALID_RESUME_TOKEN'];
const OTHER_FILTER = [status.INVALID_ARGUMENT, 'RESUME_TOKEN_FILTER_CHANGED'];
const COMPACTED = [status.OUT_OF_RANGE, 'REVISION_COMPACTED'];
const FUTURE = [status.OUT_OF_RANGE, 'REVISION_IN_FUTURE'];
const CHANGED = [status.FAILED_PRECONDITION, 'STORE_CHANGED'];

async function rejectionOf(watch: RecordedWatch) {
  const error = await watch.end();
  expect(watch.events).toEqual([]);
  return [error.code, error.reason];
}

/** Tokens of a stream by their revisions. */
const tokensOf = (watch: RecordedWatch) =>
  new Map(watch.events.filter((one) => one.resume_token !== '').map((one) => [Number(one.revision), one.resume_token]));

/** Creates an agent with a config, updates the config, and collects the resume tokens of all its revisions. */
async function writeRevisions(backend: WatchBackend, writes: number) {
  const agent = await newAgent(backend);
  const config = await newConfig(backend, {}, agent);
  const watch = await backend.watch({ agents: [{ name: agent.name }] }).ready();
  let last = 0n;
  for (let at = 0; at < writes; at++)
    last = (await backend.configs.updateConfig({ config: { id: config.id, max_tokens: 10 + at } })).revision;
  await watch.has(last);
  const request = (resume_token: string) => ({ agents: [{ name: agent.name }], resume_token });
  const tokens = tokensOf(watch);
  const at = (revision: number) => backend.watch(request(present(tokens.get(revision))));
  return { config, watch, tokens, request, at, head: Number(last) };
}

describe.each(engines)('a resume token on %s', (engine) => {
  const backend = useWatchBackend(engine);

  it('of any revision resumes the stream after it, and a bookmark ends the missed changes', async () => {
    const { at, tokens, head } = await writeRevisions(backend(), 6);
    for (const revision of tokens.keys()) {
      const resumed = await at(revision).has(head);
      expect(resumed.started).toMatchObject({ resumed: true });
      expect(resumed.events[0]).toMatchObject({ revision: BigInt(head), resume_token: '' });
      expect(resumed.events.some(({ snapshot_begin, snapshot }) => snapshot_begin || snapshot)).toBe(false);
      expect(resumed.revisions).toEqual([...tokens.keys()].filter((one) => one > revision));
      await resumed.until((one) => one.events.at(-1)?.bookmark !== undefined);
      await backend().check([resumed.history(revision)]);
    }
  });

  it('is accepted for the same agents in any order or repeated, and rejected for others', async () => {
    const [a, b] = [await newAgent(backend()), await newAgent(backend())];
    const agents = [{ name: a.name }, { id: b.id }];
    const { token } = await backend().watch({ agents }).ready();
    for (const same of [agents.toReversed(), [...agents, ...agents]])
      await backend().watch({ agents: same, resume_token: token }).ready();
    const others = [
      { agents: [{ name: a.name }] },
      { agents: [...agents, { id: a.id }] },
      { agents: [{ id: a.id }, { id: b.id }] },
      // A name that has the textual form of an id.
      { agents: [{ name: a.name }, { name: `#${b.id}` }] },
      { all_agents: true },
    ];
    for (const other of others)
      expect(await rejectionOf(backend().watch({ ...other, resume_token: token }))).toEqual(OTHER_FILTER);
  });

  it('is always rejected with INVALID_RESUME_TOKEN when it is malformed', async () => {
    const { tokens, request, head } = await writeRevisions(backend(), 1);
    const token = present(tokens.get(head));
    const [identity = '', revision = '', nonce = '', filterHash = ''] = token.split('.');
    const garbage = [
      'x',
      ' ',
      token.slice(1),
      token.slice(0, -1),
      `${token}x`,
      `${token} `,
      token.toUpperCase(),
      `${identity}.-1.${nonce}.${filterHash}`,
      `${identity}.1e3.${nonce}.${filterHash}`.replace('1e3', '1.5'),
      `${identity}..${nonce}.${filterHash}`,
      `${identity}.zzzzzzzzzzz.${nonce}.${filterHash}`,
      `${identity}.${revision}.${nonce}g.${filterHash}`,
      [identity, revision, nonce].join('.'),
      '\u0000',
      "' or 1=1 --",
      '%00%2e',
      'é'.repeat(100),
      'x'.repeat(100_000),
    ];
    for (const one of garbage)
      expect(await rejectionOf(backend().watch(request(one))), JSON.stringify(one.slice(0, 80))).toEqual(INVALID);
    // A well-formed token is compared with the store and the filter.
    expect(await rejectionOf(backend().watch(request(`${'0'.repeat(8)}.${revision}.${nonce}.${filterHash}`)))).toEqual(
      CHANGED,
    );
    expect(
      await rejectionOf(backend().watch(request(`${identity}.${revision}.${'0'.repeat(8)}.${filterHash}`))),
    ).toEqual(CHANGED);
    expect(await rejectionOf(backend().watch(request(`${identity}.${revision}..${filterHash}`)))).toEqual(CHANGED);
    expect(await rejectionOf(backend().watch(request(`${identity}.${revision}.${nonce}.${'A'.repeat(10)}`)))).toEqual(
      OTHER_FILTER,
    );
  });

  it('is accepted at the head and rejected with REVISION_IN_FUTURE beyond it', async () => {
    const { tokens, request, at, head } = await writeRevisions(backend(), 1);
    const atHead = await at(head).ready();
    expect(atHead.events.map(({ bookmark, started }) => (bookmark ? 'bookmark' : started && 'started'))).toEqual([
      'started',
      'bookmark',
    ]);
    expect(atHead.reached).toBe(head);
    const parts = present(tokens.get(head)).split('.');
    for (const ahead of [head + 1, head + 1000, Number.MAX_SAFE_INTEGER]) {
      const watch = backend().watch(request([parts[0], ahead.toString(36), parts[2], parts[3]].join('.')));
      const error = await watch.end();
      expect([error.code, error.reason]).toEqual(FUTURE);
      expect(error.metadata).toMatchObject({ revision: `${ahead}`, newest: `${head}` });
    }
  });

  /** Makes every log entry before a revision an hour older. */
  const makeOlder = (revision: number) => {
    const { knex } = backend().database;
    return knex('config_revisions')
      .where('revision', '<', revision)
      .update({ created_at: knex.raw(`created_at - interval '1 hour'`) });
  };

  /** Another replica, whose memory does not contain the entries that the log has lost. */
  async function replica(options: Parameters<typeof startWatchBackend>[0] = {}): Promise<WatchBackend> {
    const other = await startWatchBackend({ database: backend().database, ...options });
    onTestFinished(() => other.stop());
    return other;
  }

  it.each(['the history is compacted', 'the retention of watches has expired'])(
    'is accepted from the oldest retained revision on, and rejected before it, when %s',
    async (cause) => {
      const { tokens, head, request } = await writeRevisions(backend(), 10);
      const compacted = cause === 'the history is compacted';
      // All changes after this revision are retained; the revision itself is not needed any more.
      const oldest = head - 4;
      await makeOlder(compacted ? oldest : oldest + 1);
      const other = await replica({ watchRetentionMs: compacted ? Number.POSITIVE_INFINITY : 60_000 });
      if (compacted) await compactHistory(other.store, 60_000);
      const at = (revision: number) => other.watch(request(present(tokens.get(revision))));
      for (const revision of [oldest - 3, oldest - 1]) {
        const error = await at(revision).end();
        expect([error.code, error.reason], `${revision}`).toEqual(COMPACTED);
        expect(error.metadata).toEqual({ revision: `${revision}`, oldest: `${oldest}` });
      }
      for (const revision of [oldest, oldest + 1, head]) {
        const resumed = await at(revision).has(head);
        expect(resumed.started?.resumed).toBe(true);
        expect(resumed.revisions).toEqual([...tokens.keys()].filter((one) => one > revision));
      }
    },
  );

  it('is rejected by the clock of the database when it is older than the retention', async () => {
    const other = await replica({ watchRetentionMs: 600_000 });
    const { tokens, head, request } = await writeRevisions(other, 3);
    await other.watch(request(present(tokens.get(head - 2)))).has(head);
    const log = other.database.knex('config_revisions');
    await log.update({ created_at: other.database.knex.raw("created_at - interval '1 hour'") });
    // The replica caches the oldest revision for 200 ms.
    await sleep(300);
    expect(await rejectionOf(other.watch(request(present(tokens.get(head - 2)))))).toEqual(COMPACTED);
    // The head is never too old, because no change followed it.
    await other.watch(request(present(tokens.get(head)))).ready();
  });

  it('is rejected with STORE_CHANGED when it is of another store', async () => {
    const other = await startWatchBackend();
    // All tests start from a copy of the same store, with the same identity.
    await renewStoreIdentity(other.store);
    const { request, tokens, head } = await writeRevisions(other, 1);
    await other.stop();
    expect(await rejectionOf(backend().watch(request(present(tokens.get(head)))))).toEqual(CHANGED);
  });

  it('is rejected by every replica, and open streams end, when the identity of the store is renewed', async () => {
    const { request, watch, tokens, head } = await writeRevisions(backend(), 3);
    const all = await backend().watch({ all_agents: true }).ready();
    await renewStoreIdentity(backend().store);
    for (const one of [watch, all]) expect([(await one.end()).code, one.error?.reason]).toEqual(CHANGED);
    const later = await replica();
    for (const where of [backend(), later])
      for (const revision of [head - 1, head])
        expect(await rejectionOf(where.watch(request(present(tokens.get(revision)))))).toEqual(CHANGED);
    await backend().watch({ all_agents: true }).ready();
  });

  it('is rejected by every replica, and open streams end, when a restore reused its revision', async () => {
    const { request, watch, tokens, head, config } = await writeRevisions(backend(), 3);
    const { knex } = backend().database;
    const [before] = await knex('config_revisions').where({ revision: head - 2 });
    // The database as restored from a backup that was made at head - 2.
    await knex.transaction(async (tx) => {
      await tx('config_revisions')
        .where('revision', '>', head - 2)
        .delete();
      await tx('agent_llm_configs')
        .where({ id: config.id })
        .update({ max_tokens: 10, revision: head - 2 });
      await tx('store_state').update({ revision: head - 2, nonce: before.nonce });
    });
    expect([(await watch.end()).code, watch.error?.reason]).toEqual(CHANGED);
    const other = await replica();
    for (let at = 0; at < 4; at++)
      await other.configs.updateConfig({ config: { id: config.id, max_tokens: 100 + at } });
    const third = await replica();
    for (const where of [other, third, backend()])
      expect(await rejectionOf(where.watch(request(present(tokens.get(head)))))).toEqual(CHANGED);
    // A new stream starts with the current state.
    const { agents } = await third.watch({ agents: [{ id: config.agent_id }] }).ready();
    expect(agents[0]?.configs[0]?.max_tokens).toBe(103);
  });

  it('that is older than the ring resumes with every revision and its complete material', async () => {
    // The full size is tested on one engine, because the ring is the same on both.
    const size = engine === 'postgres' ? limits.ringRevisions : 300;
    if (size !== limits.ringRevisions) withLimits({ ringRevisions: size });
    const { agents, configs, credentials, providers } = backend();
    const all = await backend().watch({ all_agents: true }).ready();
    const gone = await newAgent(backend());
    const moved = await newAgent(backend());
    const quiet = await newAgent(backend());
    const filter = { all_agents: false, agents: [{ id: moved.id }, { name: gone.name }] };
    const some = await backend().watch(filter).ready();
    await newConfig(backend(), {}, gone);
    const [from, fromSome] = [all.reached, some.reached];
    const [token, tokenSome] = [all.token, some.token];
    const credential = unique('cred');
    await credentials.createCredential({ credential: { name: credential, provider: 'openai' }, api_key: 'sk-x' });
    const { id } = await newConfig(backend(), { credential_name: credential }, moved);
    const { name: provider } = await newProvider(backend());
    await newModel(backend(), { provider, name: 'm' });
    const updateQuietAgent = async (count: number) => {
      const { id } = await newConfig(backend(), {}, quiet);
      for (let at = 0; at < count; at += 100)
        await Promise.all(
          Array.from({ length: 100 }, (_, n) => configs.updateConfig({ config: { id, max_tokens: at + n + 1 } })),
        );
    };
    await updateQuietAgent(size / 3);
    await agents.updateAgent({ agent: { id: moved.id, name: unique('moved') } });
    await configs.updateConfig({ config: { id, credential_name: undefined }, update_mask: ['credential_name'] });
    await credentials.deleteCredential({ name: credential });
    await providers.deleteModel({ provider, name: 'm' });
    await updateQuietAgent(size / 3);
    await agents.deleteAgent({ agent: { id: gone.id }, cascade: true });
    await newAgent(backend(), { name: gone.name });
    await configs.bulkAssignConfig({ agents: [{ id: moved.id }, { id: quiet.id }], config: GPT4 });
    await providers.deleteProvider({ name: provider });
    await updateQuietAgent(size / 2);
    const { revision } = await agents.deleteAgent({ agent: { id: moved.id }, cascade: true });
    expect(Number(revision) - from).toBeGreaterThan(size + 100);
    const streams = [
      [backend().watch({ all_agents: true, resume_token: token }), from],
      [backend().watch({ ...filter, resume_token: tokenSome }), fromSome],
    ] as const;
    const other = await replica();
    const resumedElsewhere = other.watch({ all_agents: true, resume_token: token });
    for (const [one] of streams) await one.has(revision);
    await resumedElsewhere.has(revision);
    expect(streams[0][0].revisions).toHaveLength(Number(revision) - from);
    await backend().check([
      all.history(),
      ...streams.map(([one, at]) => one.history(at)),
      resumedElsewhere.history(from),
    ]);
    // The messages equal those of the live stream.
    const live = new Map(all.changes.map((one) => [Number(one.revision), one]));
    for (const message of streams[0][0].changes) expect(message).toEqual(live.get(Number(message.revision)));
  });

  it('cannot be replayed from a log that lacks a part, even when some older entries remain', async () => {
    const kept = await newAgent(backend());
    const { id } = await newConfig(backend());
    const { revision: gone } = await backend().configs.updateConfig({ config: { id, max_tokens: 1 } });
    const later = await newAgent(backend());
    const { revision } = await backend().configs.updateConfig({ config: { id, max_tokens: 2 } });
    const { revision: head } = await backend().configs.updateConfig({ config: { id, max_tokens: 3 } });
    await makeOlder(Number(head));
    await compactHistory(backend().store, 60_000);
    const left: number[] = await backend().database.knex('config_revisions').orderBy('revision').pluck('revision');
    // An entry remains and the next one is missing, so a replay from the first would be incomplete.
    for (const [revision, remains] of [
      [kept.revision, true],
      [gone, false],
      [later.revision, true],
    ] as const)
      expect(left.includes(Number(revision))).toBe(remains);
    const replay = new Replay((from) => readEvents(backend().store, from));
    for (const lost of [kept.revision, gone, later.revision, revision])
      await expect(replay.at(Number(lost)), `${lost}`).rejects.toMatchObject({ reason: 'REVISION_COMPACTED' });
    expect((await replay.at(Number(head))).agents[0]?.configs[0]?.max_tokens).toBe(3);
  });

  it('is rejected, and its open stream ends, when the stream lags behind the retained log', async () => {
    withLimits({ ringRevisions: 100 });
    const agent = await newAgent(backend());
    const other = await replica();
    const big = { prompt_template: 'x'.repeat(60_000) };
    const stalled = await other.watch({ agents: [{ id: agent.id }] }).ready();
    const { token } = stalled;
    stalled.pause();
    const update = (at: number) => other.agents.updateAgent({ agent: { id: agent.id, ...big, description: `${at}` } });
    // Enough to fill the buffers of the transport.
    for (let at = 0; at < 60; at++) await update(at);
    expect(other.api.watches().behind).toBe(1);
    const { id } = await newConfig(other, {});
    for (let at = 0; at < 300; at += 100)
      await Promise.all(
        Array.from({ length: 100 }, (_, n) => other.configs.updateConfig({ config: { id, max_tokens: at + n + 1 } })),
      );
    const last = await update(1000);
    await makeOlder(Number(last.revision));
    await compactHistory(other.store, 60_000);
    stalled.resume();
    const error = await stalled.end();
    expect([error.code, error.reason]).toEqual(COMPACTED);
    expect(Number(error.metadata['oldest'])).toBe(Number(last.revision));
    expect(await rejectionOf(other.watch({ agents: [{ id: agent.id }], resume_token: token }))).toEqual(COMPACTED);
    expect(await rejectionOf(other.watch({ agents: [{ id: agent.id }], resume_token: stalled.token }))).toEqual(
      COMPACTED,
    );
    // The received revisions are in order and without duplicates.
    expect(stalled.revisions).toEqual([...new Set(stalled.revisions)].sort((a, b) => a - b));
    const resumed = await other.watch({ agents: [{ id: agent.id }] }).ready();
    expect(resumed.agents[0]?.agent?.description).toBe('1000');
  });
});

describe('a restored dump', () => {
  it('is detected by its nonce on a replica that was stopped during the restore', async () => {
    const postgres = await startPostgres();
    onTestFinished(() => postgres.stop());
    const url = await postgres.createDatabase('seeded');
    const first = await startWatchBackend({ url });
    const { tokens, request, head, config } = await writeRevisions(first, 4);
    const all = await first.watch({ all_agents: true }).ready();
    const session = await connectPg(url);
    onTestFinished(() => session.end());
    const { rows } = await session.query('select nonce from config_revisions where revision = $1', [head - 2]);
    await first.stop();
    await all.end();
    await session.query('delete from config_revisions where revision > $1', [head - 2]);
    await session.query('update agent_llm_configs set max_tokens = 11, revision = $1 where id = $2', [
      head - 2,
      config.id,
    ]);
    await session.query('update store_state set revision = $1, nonce = $2', [head - 2, rows[0].nonce]);
    const second = await startWatchBackend({ url });
    onTestFinished(() => second.stop());
    // Retained revisions can be resumed. Lost revisions are in the future until their numbers are used again.
    await second.watch(request(present(tokens.get(head - 2)))).ready();
    expect(await rejectionOf(second.watch(request(present(tokens.get(head)))))).toEqual(FUTURE);
    for (let at = 0; at < 3; at++)
      await second.configs.updateConfig({ config: { id: config.id, max_tokens: 50 + at } });
    expect(await rejectionOf(second.watch(request(present(tokens.get(head)))))).toEqual(CHANGED);
    expect(await rejectionOf(second.watch(request(present(tokens.get(head - 1)))))).toEqual(CHANGED);
    const kept = await second.watch(request(present(tokens.get(head - 2)))).has(head + 1);
    expect(kept.revisions).toEqual([head - 1, head, head + 1]);
    await second.check([kept.history(head - 2)]);
  });
});
