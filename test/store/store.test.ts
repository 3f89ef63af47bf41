import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { newAgent } from '../../src/domain/agent.js';
import { newConfig } from '../../src/domain/config.js';
import type { Draft } from '../../src/domain/draft.js';
import type { State } from '../../src/domain/state.js';
import { ServiceError } from '../../src/errors.js';
import { limits } from '../../src/limits.js';
import { Store } from '../../src/store/store.js';
import { advance, loadState } from '../../src/store/write/change_log.js';
import { readHead } from '../../src/store/write/head.js';
import { deleteExpiredResponses } from '../../src/store/write/idempotency.js';
import type { Plan, Write } from '../../src/store/write/planned_write.js';
import { transact, validateWrite } from '../../src/store/write/transact.js';
import { startPostgres } from '../support/postgres.js';
import { unique } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { contents, gapsInLog, openStore, replay, type TestStore } from '../support/store.js';
import { until } from '../support/until.js';

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

/** A write whose response is the result of its plan and the revision, as JSON. */
function writing<T>(plan: Plan<T>, over: Partial<Write<T>> = {}): Write<T> {
  return {
    actor: 'tester',
    method: 'test/Write',
    requestId: undefined,
    reason: undefined,
    plan,
    encodeResponse: (result, revision) => Buffer.from(JSON.stringify({ result, revision })),
    body: () => Buffer.from('body'),
    ...over,
  };
}

const create = (draft: Draft, name = unique('agent')) =>
  draft.create('agent', { ...newAgent(), name, agent_type: 'analyst' });
const creating = (name = unique('agent')) => writing((_: State, draft: Draft) => create(draft, name).id);

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => expect.unreachable(`resolved with ${String(value)}`),
    (error: unknown) => error,
  );
}

describe.each(['embedded', 'postgres'] as const)('the store on %s', (engine) => {
  let opened: TestStore;
  let store: Store;
  let knex: Knex;
  let url: string | undefined;
  let stopDatabase = async () => {};

  beforeAll(async () => {
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      url = await postgres.createDatabase('migrated');
    }
    opened = await openStore({ url });
    store = opened.store;
    knex = opened.database.knex;
  });

  afterAll(async () => {
    await opened?.close();
    await stopDatabase();
  });

  const write = async <T>(request: Write<T>): Promise<{ result: T; revision: number }> =>
    JSON.parse(text(await transact(store, request)));
  /** Every part of the store that a write changes. */
  const snapshot = async () => [
    contents(store.state),
    contents(await loadState(knex)),
    await readHead(knex),
    (await knex('config_revisions').count({ n: '*' }))[0],
    (await knex('idempotent_answers').count({ n: '*' }))[0],
  ];

  it('assigns the next revision to a write in memory, in the tables and in the change log', async () => {
    const before = store.state.revision;
    const { result: id, revision } = await write(creating());
    expect(revision).toBe(before + 1);
    expect(store.state.revision).toBe(revision);
    expect(store.state.agents.get(id)).toMatchObject({ id, revision });
    expect(await knex('agent_configs').where({ id }).select('revision')).toEqual([{ revision }]);
    expect(await gapsInLog(opened.database)).toEqual([]);
  });

  it('changes nothing when a plan throws, in the dry run or while the lock is held', async () => {
    await write(creating());
    const before = await snapshot();
    const dry = writing((_, draft) => {
      create(draft);
      throw ServiceError.of('CANCELLED', {});
    });
    expect(await errorOf(transact(store, dry))).toMatchObject({ reason: 'CANCELLED' });
    let runs = 0;
    const late = writing((_, draft) => {
      create(draft);
      runs += 1;
      if (draft.revision > 0) throw new Error('changed my mind');
    });
    expect(await errorOf(transact(store, { ...late, requestId: randomUUID() }))).toMatchObject({
      message: 'changed my mind',
    });
    expect(runs).toBeGreaterThanOrEqual(2);
    expect(await snapshot()).toEqual(before);
  });

  it('changes nothing when a statement of the write fails', async () => {
    const before = await snapshot();
    // The second agent has the name of the first, which only the database detects.
    const name = unique('twin');
    const twins = writing((_, draft) => [create(draft, name).id, create(draft, name).id], { requestId: randomUUID() });
    const error = await errorOf(transact(store, twins));
    expect(error).toMatchObject({ code: '23505' });
    expect(await snapshot()).toEqual(before);
    expect((await write(creating())).revision).toBe((before[2] as { revision: number }).revision + 1);
  });

  describe('writes that wait while another write commits', () => {
    /** Queues writes while another write commits, so that they are committed in one batch. */
    async function writeInBatch(...writes: readonly object[]) {
      const first = transact(store, creating());
      const all = await Promise.allSettled(writes.map((request) => transact(store, request as Write<unknown>)));
      await first;
      return all.map((outcome) => (outcome.status === 'fulfilled' ? JSON.parse(text(outcome.value)) : outcome.reason));
    }
    const rename = (from: string, to: string) =>
      writing((state: State, draft: Draft) => {
        const agent = state.agentNamed(from);
        if (!agent) throw ServiceError.of('AGENT_NOT_FOUND', { agent: from });
        if (state.agentNamed(to)) throw ServiceError.of('AGENT_NAME_TAKEN', { agent: to });
        return draft.update('agent', agent, { ...agent, name: to }).id;
      });

    it('are committed in one transaction, each with its own revision, log entry and nonce', async () => {
      const before = store.state.revision;
      const writes = Array.from({ length: 10 }, () => creating());
      const revisions = (await writeInBatch(...writes)).map(({ revision }) => revision);
      expect(revisions).toEqual(revisions.map((_, at) => before + 2 + at));
      const log = await knex('config_revisions').whereIn('revision', revisions).orderBy('revision');
      expect(new Set(log.map(({ created_at }) => +created_at)).size).toBe(1);
      expect(new Set(log.map(({ nonce }) => nonce)).size).toBe(10);
      const [head] = await knex('store_state').select('revision', 'nonce', 'previous_nonce');
      expect(head).toEqual({
        revision: before + 11,
        nonce: log.at(-1).nonce,
        previous_nonce: log.at(-2).nonce,
      });
      expect(store.state.nonce).toBe(head.nonce);
      expect(await gapsInLog(opened.database)).toEqual([]);
      expect(contents(await loadState(knex))).toEqual(contents(store.state));
    });

    it('see the writes before them, and a rejected write does not affect the others', async () => {
      const name = unique('same');
      const once = () =>
        writing((state: State, draft: Draft) => {
          if (state.agentNamed(name)) throw ServiceError.of('AGENT_NAME_TAKEN', { agent: name });
          return create(draft, name).id;
        });
      const before = store.state.revision;
      const [first, second, third] = await writeInBatch(once(), once(), creating());
      expect([first.revision, second.reason, third.revision]).toEqual([before + 2, 'AGENT_NAME_TAKEN', before + 3]);
    });

    it('are executed one by one when the database rejects the batch', async () => {
      const [x, y, z, w] = [unique('x'), unique('y'), unique('z'), unique('w')];
      await write(creating(x));
      await write(creating(z));
      // In one batch, the row that is finally named x is stored before the row that was named x is renamed.
      const outcomes = await writeInBatch(
        writing((state: State, draft: Draft) => {
          const agent = state.agentNamed(x);
          return agent && draft.update('agent', agent, { ...agent, name: y }).id;
        }),
        skippingDryRun(rename(z, x)),
        skippingDryRun(rename(y, w)),
      );
      expect(outcomes.map(({ revision }) => typeof revision)).toEqual(['number', 'number', 'number']);
      expect([x, y, z, w].map((name) => store.state.agentNamed(name) !== undefined)).toEqual([
        true,
        false,
        false,
        true,
      ]);
      expect(contents(await loadState(knex))).toEqual(contents(store.state));
    });

    /** A write that depends on an uncommitted write: its dry run does nothing, so that it reports no error. */
    const skippingDryRun = <T>(request: Write<T>) => ({
      ...request,
      plan: (state: State, draft: Draft) => (draft.revision === 0 ? undefined : request.plan(state, draft)),
    });

    it('succeed except the one that caused the rejection of the batch', async () => {
      const name = unique('twin');
      const twins = writing((_, draft) => [create(draft, name).id, create(draft, name).id]);
      const [first, second, third] = await writeInBatch(creating(), twins, creating());
      expect([typeof first.revision, second.code, typeof third.revision]).toEqual(['number', '23505', 'number']);
      expect(await gapsInLog(opened.database)).toEqual([]);
    });

    it('get one response when they have the same request id and body', async () => {
      const requestId = randomUUID();
      const request = { ...creating(), requestId };
      const [first, second, other] = await writeInBatch(request, request, {
        ...request,
        body: () => Buffer.from('another'),
      });
      expect(second).toEqual(first);
      expect(other).toMatchObject({ reason: 'REQUEST_ID_REUSED' });
    });

    it('store the last value of a row that they change several times and log every value', async () => {
      const { result: id } = await write(creating());
      const setting = (max_tokens: number) =>
        writing((state: State, draft: Draft) => {
          const agent = state.agents.get(id);
          return agent && draft.update('agent', agent, { ...agent, max_tokens }).revision;
        });
      const remove = writing((state: State, draft: Draft) => {
        const agent = state.agents.get(id);
        if (agent) draft.remove('agent', agent);
      });
      await writeInBatch(setting(1), setting(2), setting(3));
      expect(await knex('agent_configs').where({ id }).pluck('max_tokens')).toEqual([3]);
      await writeInBatch(setting(4), remove);
      expect(await knex('agent_configs').where({ id })).toEqual([]);
      const log = await knex('config_revisions').where({ entity: 'agent', entity_id: id }).orderBy('revision');
      expect(log.map(({ after }) => after?.max_tokens ?? null)).toEqual([null, 1, 2, 3, 4, null]);
      expect(contents(await replay(opened.database))).toEqual(contents(store.state));
    });
  });

  it('creates no revision when the plan changes nothing', async () => {
    const before = await snapshot();
    const nothing = writing(() => 'nothing', { requestId: randomUUID() });
    expect(await write(nothing)).toEqual({ result: 'nothing', revision: store.state.revision });
    expect(await snapshot()).toEqual(before);
  });

  it('changes nothing when a write is only rehearsed (validate_only)', async () => {
    const before = await snapshot();
    const response = JSON.parse(text(await validateWrite(store, { ...creating(), requestId: randomUUID() })));
    expect(response).toEqual({ result: 0, revision: store.state.revision });
    expect(await snapshot()).toEqual(before);
  });

  it('allocates ids when the plan creates more rows than its dry run', async () => {
    let count = 1;
    const growing = writing((_, draft) => {
      const ids = Array.from({ length: count }, () => create(draft).id);
      count = 5;
      return ids;
    });
    const { result } = await write(growing);
    expect(new Set(result).size).toBe(5);
    expect(Math.min(...result)).toBeGreaterThan(0);
    expect(await knex('agent_configs').whereIn('id', result)).toHaveLength(5);
  });

  it('stores 1000 configs of 1000 agents as one revision', async () => {
    const { result: agents } = await write(writing((_, draft) => Array.from({ length: 1000 }, () => create(draft).id)));
    const { result: configs, revision } = await write(
      writing((_, draft) =>
        agents.map((id) => draft.create('config', { ...newConfig(id, 0), provider: 'openai', model_name: 'gpt-4' }).id),
      ),
    );
    expect(new Set(configs).size).toBe(1000);
    expect(await knex('agent_llm_configs').where({ revision })).toHaveLength(1000);
    const rows: { position: number }[] = await knex('config_revisions').where({ revision }).orderBy('position');
    expect(rows.map(({ position }) => position)).toEqual(rows.map((_, at) => at));
    expect(rows).toHaveLength(1000);
    const chains = await knex('agent_configs').whereIn('id', agents).distinct('chain_revision');
    expect(chains).toEqual([{ chain_revision: revision }]);
    const memory = contents(store.state);
    expect(memory).toEqual(contents(await loadState(knex)));
    expect(contents(await replay(opened.database))).toEqual(memory);
  });

  describe('the change log', () => {
    it('contains the actor, the method, the reason and the rows before and after', async () => {
      const requestId = randomUUID();
      const { result: id } = await write({ ...creating(), requestId, reason: 'because' });
      const config = { ...newConfig(id, 0), provider: 'openai', model_name: 'gpt-4' };
      const { result: configId } = await write(writing((_, draft) => draft.create('config', config).id));
      await write(
        writing((state, draft) => {
          const before = state.configs.get(configId);
          if (before) draft.update('config', before, { ...before, temperature: 0.25 });
        }),
      );
      await write(
        writing((state, draft) => {
          const before = state.configs.get(configId);
          if (before) draft.remove('config', before);
        }),
      );
      const agentRows = await knex('config_revisions').where({ entity: 'agent', entity_id: id });
      expect(agentRows).toMatchObject([
        { action: 'create', before: null, after: { id }, actor: 'tester', method: 'test/Write', reason: 'because' },
      ]);
      expect(agentRows[0].request_id).toBe(requestId);
      const rows = await knex('config_revisions').where({ entity: 'config', entity_id: configId }).orderBy('revision');
      expect(rows.map(({ action }: { action: string }) => action)).toEqual(['create', 'update', 'delete']);
      const [created, updated, deleted] = rows;
      expect([created.before, created.after.temperature]).toEqual([null, 0.7]);
      expect([updated.before, updated.after.temperature]).toEqual([created.after, 0.25]);
      expect([deleted.before, deleted.after]).toEqual([updated.after, null]);
    });

    it('contains no ciphertext, and a write keeps the ciphertext of the row', async () => {
      const { result: id } = await write(creating());
      const config = { ...newConfig(id, 0), provider: 'openai', model_name: 'gpt-4' };
      const { result: configId } = await write(writing((_, draft) => draft.create('config', config).id));
      const { rows: columns } = await knex.raw(
        `select column_name from information_schema.columns
         where table_name = 'agent_llm_configs' and column_name ~ 'api_key|cipher|encrypt|secret'`,
      );
      const secret = columns
        .map((row: { column_name: string }) => row.column_name)
        .find((n: string) => /api_key/.test(n));
      expect(secret).toBeDefined();
      await knex('agent_llm_configs')
        .where({ id: configId })
        .update({ [secret]: 'gAAAA-CANARY' });
      const updating = writing((state: State, draft: Draft) => {
        const before = state.configs.get(configId);
        if (before) draft.update('config', before, { ...before, max_tokens: 5 });
      });
      await write(updating);
      await advance(store, knex, await readHead(knex));
      const { rows } = await knex.raw(
        `select count(*)::int as n from config_revisions r where r::text like '%CANARY%'`,
      );
      expect(rows).toEqual([{ n: 0 }]);
      const logged = await knex('config_revisions').where({ entity: 'config', entity_id: configId });
      for (const row of logged)
        for (const { column_name } of columns) expect(Object.keys(row.after)).not.toContain(column_name);
      expect(await knex('agent_llm_configs').where({ id: configId }).select(secret, 'max_tokens')).toEqual([
        { [secret]: 'gAAAA-CANARY', max_tokens: 5 },
      ]);
      expect(JSON.stringify([...(await loadState(knex)).configs.values()])).not.toContain('CANARY');
    });
  });

  it('reports OUTCOME_UNKNOWN when a failure follows the commit of a write', async () => {
    const before = store.state.revision;
    const failing = vi.spyOn(store, 'apply').mockImplementationOnce(() => {
      throw Object.assign(new Error('too many connections'), { code: '53300' });
    });
    onTestFinished(() => failing.mockRestore());
    const requestId = randomUUID();
    const once = { ...creating(), requestId };
    await expect(transact(store, once)).rejects.toMatchObject({ reason: 'OUTCOME_UNKNOWN' });
    expect((await readHead(knex)).revision).toBe(before + 1);
    await transact(store, once);
    expect((await readHead(knex)).revision).toBe(before + 1);
  });

  describe('a request id', () => {
    it('returns the first response when it is repeated, without planning or writing again', async () => {
      const requestId = randomUUID();
      const first = await transact(store, { ...creating(), requestId });
      const before = await snapshot();
      const repeated = await transact(store, { ...creating(), requestId });
      expect(text(repeated)).toBe(text(first));
      expect(await snapshot()).toEqual(before);
    });

    it('is separate for each caller and each method', async () => {
      const requestId = randomUUID();
      const revisions = [];
      for (const over of [{}, { actor: 'another' }, { method: 'test/Other' }])
        revisions.push((await write({ ...creating(), requestId, ...over })).revision);
      expect(new Set(revisions).size).toBe(3);
    });

    it('is rejected with another body, which is not stored', async () => {
      const requestId = randomUUID();
      const body = () => Buffer.from('sk-CANARY-body');
      await write({ ...creating(), requestId, body });
      const reused = await errorOf(transact(store, { ...creating(), requestId }));
      expect(reused).toMatchObject({ reason: 'REQUEST_ID_REUSED' });
      const { rows } = await knex.raw(
        `select count(*)::int as n from idempotent_answers where position('sk-CANARY-body'::bytea in body_hash) > 0
         or position('sk-CANARY-body'::bytea in response) > 0`,
      );
      expect(rows).toEqual([{ n: 0 }]);
    });

    it('can be used again after a failed request', async () => {
      const requestId = randomUUID();
      const failing = writing(() => {
        throw ServiceError.of('CANCELLED', {});
      });
      await errorOf(transact(store, { ...failing, requestId }));
      await expect(write({ ...creating(), requestId, body: () => Buffer.from('other') })).resolves.toBeDefined();
    });

    it('expires after 24 hours and is then deleted', async () => {
      const [old, recent] = [randomUUID(), randomUUID()];
      const age = (requestId: string, time: string) =>
        knex('idempotent_answers')
          .where({ request_id: requestId })
          .update({ created_at: knex.raw(`now() - interval '${time}'`) });
      const first = await write({ ...creating(), requestId: old });
      const recentResponse = await write({ ...creating(), requestId: recent });
      await age(old, '24 hours 1 second');
      await age(recent, '23 hours 59 minutes');
      expect(await write({ ...creating(), requestId: recent })).toEqual(recentResponse);
      // Another body is accepted because the stored response has expired.
      const second = await write({ ...creating(), requestId: old, body: () => Buffer.from('other') });
      expect(second.revision).toBeGreaterThan(first.revision);
      expect(await write({ ...creating(), requestId: old, body: () => Buffer.from('other') })).toEqual(second);
      await age(old, '24 hours 1 second');
      await deleteExpiredResponses(knex);
      const remaining = await knex('idempotent_answers').whereIn('request_id', [old, recent]).pluck('request_id');
      expect(remaining).toEqual([recent]);
    });
  });

  describe('the feed', () => {
    it('resolves reached() immediately for a past revision, and otherwise when the revision is reached', async () => {
      const { signal } = new AbortController();
      await opened.feed.reached(store.state.revision, signal);
      const pending = opened.feed.reached(store.state.revision + 2, signal);
      let reached = false;
      void pending.then(() => {
        reached = true;
      });
      await write(creating());
      await opened.feed.poll();
      expect(reached).toBe(false);
      await write(creating());
      await pending;
      expect(reached).toBe(true);
    });

    it('rejects reached() when the signal is aborted before or during the wait, and removes the listener', async () => {
      const revision = store.state.revision + 1000;
      const controller = new AbortController();
      const waiting = errorOf(opened.feed.reached(revision, controller.signal));
      controller.abort();
      const metadata = { wanted: String(revision), reached: String(store.state.revision) };
      expect(await waiting).toMatchObject({ reason: 'REVISION_NOT_REACHED', metadata });
      const late = await errorOf(opened.feed.reached(revision, AbortSignal.abort()));
      expect(late).toMatchObject({ reason: 'REVISION_NOT_REACHED' });
      const listeners = Reflect.get(store, 'listeners') as Set<unknown>;
      expect(listeners.size).toBe(0);
    });

    it('applies the writes of another store on the same database', async () => {
      const other = new Store(opened.database);
      other.replaceState(await loadState(knex));
      const { revision } = JSON.parse(text(await transact(other, creating())));
      expect(store.state.revision).toBe(revision - 1);
      await opened.feed.reached(revision, AbortSignal.timeout(10_000));
      expect(contents(store.state)).toEqual(contents(other.state));
    });

    it('applies more revisions than one read returns', async () => {
      const stale = new Store(opened.database);
      stale.replaceState(await loadState(knex));
      for (let n = 0; n < 450; n++) await write(creating());
      await advance(stale, knex, await readHead(knex));
      expect(contents(stale.state)).toEqual(contents(store.state));
    });

    it('does not lose an acknowledged write when writes are applied during a read of the log', async () => {
      // A read finds revision r+1 and waits for its rows. In the meantime this store writes r+2 and, while the read
      // reloads the state, r+3. The acknowledged writes must stay visible.
      const local = new Store(opened.database);
      local.replaceState(await loadState(knex));
      await transact(store, creating());
      const head = await readHead(knex);
      const [log, reload] = [createBarrier(), createBarrier()];
      const advancing = advance(local, slowReader(knex, log, reload), head);
      await log.reached;
      await transact(local, creating());
      log.open();
      await Promise.race([reload.reached, advancing]);
      const { revision } = JSON.parse(text(await transact(local, creating())));
      expect(local.state.revision).toBe(revision);
      reload.open();
      await advancing;
      expect(local.state.revision).toBe(revision);
    });
  });

  if (engine === 'postgres') {
    describe('a write during a failure of the database', () => {
      const session = async () => {
        const client = await connectPg(url as string);
        client.on('error', () => undefined);
        return client;
      };

      it('fails with WRITE_CONFLICT after the lock timeout when another session holds the lock', async () => {
        const otherSession = await session();
        try {
          await otherSession.query('begin');
          await otherSession.query('select * from store_state for update');
          const before = (await readHead(knex)).revision;
          const started = performance.now();
          const error = await errorOf(transact(store, creating()));
          expect(error).toMatchObject({ reason: 'WRITE_CONFLICT', code: 'ABORTED' });
          const waited = performance.now() - started;
          expect(waited).toBeGreaterThan(limits.lockTimeoutMs * 0.9);
          expect(waited).toBeLessThan(limits.lockTimeoutMs * 3);
          await opened.feed.poll();
          expect(opened.feed.isWritable).toBe(true);
          await otherSession.query('rollback');
          expect((await write(creating())).revision).toBe(before + 1);
        } finally {
          await otherSession.end();
        }
      });

      it('has timeouts of its transaction only, so that a frozen replica releases the counter row', async () => {
        await knex.raw('create table timeouts (name text, setting text)');
        await knex.raw(`create function note() returns trigger language plpgsql as $$ begin
          insert into timeouts select name, setting from pg_settings where name like '%timeout'; return new; end $$`);
        await knex.raw('create trigger note before insert on agent_configs for each row execute function note()');
        try {
          await write(creating());
          const rows: { name: string; setting: string }[] = await knex('timeouts').select();
          expect(Object.fromEntries(rows.map(({ name, setting }) => [name, Number(setting)]))).toMatchObject({
            lock_timeout: limits.lockTimeoutMs,
            statement_timeout: limits.statementTimeoutMs,
            idle_in_transaction_session_timeout: limits.idleInTransactionTimeoutMs,
          });
        } finally {
          await knex.raw('drop trigger note on agent_configs');
          await knex.raw('drop function note()');
          await knex.raw('drop table timeouts');
        }
        const sessions = Array.from({ length: 10 }, () =>
          knex.raw('select pg_sleep(0.05), * from pg_settings where name = ?', ['lock_timeout']),
        );
        for (const { rows } of await Promise.all(sessions)) expect(rows[0].setting).toBe('0');
      });

      /** Runs with a trigger on inserts of agents, which a separate session creates and drops. */
      async function withTrigger(when: 'before insert' | 'at commit', body: string, run: () => Promise<void>) {
        const admin = await session();
        const trigger =
          when === 'at commit'
            ? 'create constraint trigger test_trigger after insert on agent_configs deferrable initially deferred'
            : 'create trigger test_trigger before insert on agent_configs';
        await admin.query(`create function test_trigger() returns trigger language plpgsql as $$ begin ${body} end $$`);
        await admin.query(`${trigger} for each row execute function test_trigger()`);
        try {
          await run();
        } finally {
          await admin.query('drop trigger test_trigger on agent_configs');
          await admin.query('drop function test_trigger()');
          await admin.end();
        }
      }
      const DIE = 'perform pg_terminate_backend(pg_backend_pid()); return new;';
      const raise = (code: string) => `raise exception 'sk-CANARY of %', new.name using errcode = '${code}';`;

      it.each([
        ['25006', 'DATABASE_UNAVAILABLE'],
        ['53100', 'DATABASE_UNAVAILABLE'],
        ['53300', 'DATABASE_UNAVAILABLE'],
        ['57014', 'DATABASE_UNAVAILABLE'],
        ['57P01', 'DATABASE_UNAVAILABLE'],
        ['57P03', 'DATABASE_UNAVAILABLE'],
        ['58030', 'DATABASE_UNAVAILABLE'],
        ['08006', 'DATABASE_UNAVAILABLE'],
        ['40001', 'WRITE_CONFLICT'],
        ['40P01', 'WRITE_CONFLICT'],
        ['55P03', 'WRITE_CONFLICT'],
      ])(
        'fails on SQLSTATE %s with %s, without the statement in the error, and changes nothing',
        async (code, reason) => {
          const before = await snapshot();
          await withTrigger('before insert', raise(code), async () => {
            const error = (await errorOf(transact(store, creating()))) as ServiceError;
            expect(error).toMatchObject({ reason });
            expect(`${error.message} ${JSON.stringify(error.metadata)}`).not.toMatch(/CANARY|insert|agent_configs/);
          });
          expect(await snapshot()).toEqual(before);
        },
      );

      it('fails with DATABASE_UNAVAILABLE and changes nothing when the connection breaks before commit', async () => {
        const before = await snapshot();
        // The commit is sent with the last statements. If the server closed the connection before that, the driver could
        // fail to send the commit and not read the message of the server, so that the outcome would be unknown.
        await withTrigger('before insert', `perform pg_sleep(0.3); ${DIE}`, async () => {
          expect(await errorOf(transact(store, creating()))).toMatchObject({ reason: 'DATABASE_UNAVAILABLE' });
        });
        await vi.waitFor(async () => expect(await snapshot()).toEqual(before), { timeout: 30_000 });
      });

      it('fails with OUTCOME_UNKNOWN when the connection breaks during commit, and a retry succeeds', async () => {
        const request = { ...creating(), requestId: randomUUID() };
        await withTrigger('at commit', DIE, async () => {
          expect(await errorOf(transact(store, request))).toMatchObject({ reason: 'OUTCOME_UNKNOWN' });
        });
        const { revision } = await vi.waitFor(() => write(request), { timeout: 30_000 });
        expect((await write(request)).revision).toBe(revision);
        expect(await gapsInLog(opened.database)).toEqual([]);
      });

      it('fails with DATABASE_UNAVAILABLE when the database rejects the commit', async () => {
        const before = await snapshot();
        await withTrigger('at commit', raise('53100'), async () => {
          expect(await errorOf(transact(store, creating()))).toMatchObject({ reason: 'DATABASE_UNAVAILABLE' });
        });
        expect(await snapshot()).toEqual(before);
      });
    });

    describe('a reader of new revisions', () => {
      /** Runs two transactions, of which the first commits last; a reader reads all new numbers before and after. */
      async function schedule(
        nextNumber: (client: pg.Client) => Promise<number>,
      ): Promise<{ written: number[]; seen: number[] }> {
        const [slow, fast, reader] = await Promise.all([session(), session(), session()]);
        const seen: number[] = [];
        const read = async () => {
          const { rows } = await reader.query('select n from numbered where n > $1 order by n', [seen.at(-1) ?? 0]);
          seen.push(...rows.map(({ n }: { n: string }) => Number(n)));
        };
        const insert = async (client: pg.Client) => {
          const n = await nextNumber(client);
          await client.query('insert into numbered values ($1)', [n]);
          return n;
        };
        const { pid } = (await fast.query('select pg_backend_pid() as pid')).rows[0];
        try {
          await slow.query('begin');
          const first = await insert(slow);
          await fast.query('begin');
          // With the counter row this insert waits for the first transaction, so the test must not await it here.
          let settled = false;
          const second = insert(fast)
            .then(async (n) => {
              await fast.query('commit');
              return n;
            })
            .finally(() => {
              settled = true;
            });
          const isWaiting = async () => {
            const { rows } = await reader.query('select 1 from pg_locks where not granted and pid = $1', [pid]);
            return rows.length > 0;
          };
          await until(async () => settled || (await isWaiting()), 'the second insert ends or waits for a lock');
          await read();
          await slow.query('commit');
          const written = [first, await second];
          await read();
          return { written, seen };
        } finally {
          await Promise.all([slow.end(), fast.end(), reader.end()]);
        }
      }

      const session = () => connectPg(url as string);

      it('misses the transaction that commits late when numbers come from a sequence', async () => {
        await knex.raw('create table numbered (n int8 primary key)');
        await knex.raw('create sequence numbers');
        try {
          const { written, seen } = await schedule(async (client) => {
            const { rows } = await client.query(`select nextval('numbers') as n`);
            return Number(rows[0].n);
          });
          expect(written).toEqual([1, 2]);
          expect(seen).toEqual([2]);
        } finally {
          await knex.raw('drop table numbered');
          await knex.raw('drop sequence numbers');
        }
      });

      it('misses no transaction when numbers come from the counter row', async () => {
        await knex.raw('create table numbered (n int8 primary key)');
        await knex.raw('create table counter as select 0::int8 as n');
        try {
          const { written, seen } = await schedule(async (client) => {
            const { rows } = await client.query('update counter set n = n + 1 returning n');
            return Number(rows[0].n);
          });
          expect(written).toEqual([1, 2]);
          expect(seen).toEqual([1, 2]);
        } finally {
          await knex.raw('drop table numbered');
          await knex.raw('drop table counter');
        }
      });
    });
  }
});

interface Barrier {
  readonly reached: Promise<void>;
  readonly arrive: () => Promise<void>;
  readonly open: () => void;
}

/** A point at which an operation waits until `open` is called. */
function createBarrier(): Barrier {
  let reach = () => {};
  let open = () => {};
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return {
    reached,
    open,
    arrive: () => {
      reach();
      return opened;
    },
  };
}

/** A Knex with delayed results: log rows wait at one barrier, results of a transaction at another. */
function slowReader(knex: Knex, log: Barrier, transaction: Barrier): Knex {
  return new Proxy(knex, {
    apply(target, _, [table]: [string]) {
      const query = target(table);
      if (table !== 'config_revisions') return query;
      const run = query.then.bind(query);
      const delayed = run as unknown as <T>(pass: (rows: T) => Promise<T>) => Promise<unknown>;
      return Object.assign(query, {
        // biome-ignore lint/suspicious/noThenProperty: a query of Knex is awaited by its `then`.
        then: (ok: (rows: unknown) => unknown, fail: (error: unknown) => unknown) =>
          delayed(async (rows) => {
            await log.arrive();
            return rows;
          }).then(ok, fail),
      });
    },
    get(target, property) {
      const value = Reflect.get(target, property);
      if (property !== 'transaction') return value;
      return async (...args: Parameters<Knex['transaction']>) => {
        const read = await target.transaction(...args);
        await transaction.arrive();
        return read;
      };
    },
  });
}
