import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
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
import { rehearse, transact } from '../../src/store/write/transact.js';
import { startPostgres } from '../support/postgres.js';
import { unique } from '../support/service.js';
import { contents, gapsInLog, openStore, replay, type TestStore } from '../support/store.js';

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

/** A write whose answer is the result of its plan, as JSON, with the revision. */
function writing<T>(plan: Plan<T>, over: Partial<Write<T>> = {}): Write<T> {
  return {
    actor: 'tester',
    method: 'test/Write',
    requestId: undefined,
    reason: undefined,
    plan,
    answer: (result, revision) => Buffer.from(JSON.stringify({ result, revision })),
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

  const write = async <T>(one: Write<T>): Promise<{ result: T; revision: number }> =>
    JSON.parse(text(await transact(store, one)));
  /** Everything that a write could have left behind. */
  const traces = async () => [
    contents(store.state),
    contents(await loadState(knex)),
    await readHead(knex),
    (await knex('config_revisions').count({ n: '*' }))[0],
    (await knex('idempotent_answers').count({ n: '*' }))[0],
  ];

  it('gives a write the next revision, in memory, in the tables and in the log', async () => {
    const before = store.state.revision;
    const { result: id, revision } = await write(creating());
    expect(revision).toBe(before + 1);
    expect(store.state.revision).toBe(revision);
    expect(store.state.agents.get(id)).toMatchObject({ id, revision });
    expect(await knex('agent_configs').where({ id }).select('revision')).toEqual([{ revision }]);
    expect(await gapsInLog(opened.database)).toEqual([]);
  });

  it('leaves no trace of a plan that throws, dry or with the lock held', async () => {
    await write(creating());
    const before = await traces();
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
    expect(await traces()).toEqual(before);
  });

  it('leaves no trace of a write whose statements fail half-way', async () => {
    const before = await traces();
    // The second agent has the name of the first, which only the database finds out.
    const name = unique('twin');
    const twins = writing((_, draft) => [create(draft, name).id, create(draft, name).id], { requestId: randomUUID() });
    const error = await errorOf(transact(store, twins));
    expect(error).toMatchObject({ code: '23505' });
    expect(await traces()).toEqual(before);
    expect((await write(creating())).revision).toBe((before[2] as { revision: number }).revision + 1);
  });

  describe('writes that come while another one commits', () => {
    /** Has writes wait in line behind one that is under way, so that they go together. */
    async function together(...writes: readonly object[]) {
      const first = transact(store, creating());
      const all = await Promise.allSettled(writes.map((one) => transact(store, one as Write<unknown>)));
      await first;
      return all.map((one) => (one.status === 'fulfilled' ? JSON.parse(text(one.value)) : one.reason));
    }
    const rename = (from: string, to: string) =>
      writing((state: State, draft: Draft) => {
        const agent = state.agentNamed(from);
        if (!agent) throw ServiceError.of('AGENT_NOT_FOUND', { agent: from });
        if (state.agentNamed(to)) throw ServiceError.of('AGENT_NAME_TAKEN', { agent: to });
        return draft.update('agent', agent, { ...agent, name: to }).id;
      });

    it('are committed together, each with a revision, an entry in the log and a nonce of its own', async () => {
      const before = store.state.revision;
      const writes = Array.from({ length: 10 }, () => creating());
      const revisions = (await together(...writes)).map(({ revision }) => revision);
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

    it('each see those before them, and one that is refused takes nobody along', async () => {
      const name = unique('same');
      const once = () =>
        writing((state: State, draft: Draft) => {
          if (state.agentNamed(name)) throw ServiceError.of('AGENT_NAME_TAKEN', { agent: name });
          return create(draft, name).id;
        });
      const before = store.state.revision;
      const [one, two, three] = await together(once(), once(), creating());
      expect([one.revision, two.reason, three.revision]).toEqual([before + 2, 'AGENT_NAME_TAKEN', before + 3]);
    });

    it('that the database refuses together are carried out one by one', async () => {
      const [x, y, z, w] = [unique('x'), unique('y'), unique('z'), unique('w')];
      await write(creating(x));
      await write(creating(z));
      // All at once, the row that ends as x is stored before the row that was x gives the name up.
      const outcomes = await together(
        writing((state: State, draft: Draft) => {
          const agent = state.agentNamed(x);
          return agent && draft.update('agent', agent, { ...agent, name: y }).id;
        }),
        dryly(rename(z, x)),
        dryly(rename(y, w)),
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

    /** One that depends on a write which is not committed yet: its dry run, alone, finds nothing wrong. */
    const dryly = <T>(one: Write<T>) => ({
      ...one,
      plan: (state: State, draft: Draft) => (draft.revision === 0 ? undefined : one.plan(state, draft)),
    });

    it('and that the database refuses for one of them fail that one alone', async () => {
      const name = unique('twin');
      const twins = writing((_, draft) => [create(draft, name).id, create(draft, name).id]);
      const [first, second, third] = await together(creating(), twins, creating());
      expect([typeof first.revision, second.code, typeof third.revision]).toEqual(['number', '23505', 'number']);
      expect(await gapsInLog(opened.database)).toEqual([]);
    });

    it('that are one request, sent twice, get one answer', async () => {
      const requestId = randomUUID();
      const again = { ...creating(), requestId };
      const [one, two, other] = await together(again, again, { ...again, body: () => Buffer.from('another') });
      expect(two).toEqual(one);
      expect(other).toMatchObject({ reason: 'REQUEST_ID_REUSED' });
    });

    it('may change one row many times: it is stored as the last leaves it, and the log has them all', async () => {
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
      await together(setting(1), setting(2), setting(3));
      expect(await knex('agent_configs').where({ id }).pluck('max_tokens')).toEqual([3]);
      await together(setting(4), remove);
      expect(await knex('agent_configs').where({ id })).toEqual([]);
      const log = await knex('config_revisions').where({ entity: 'agent', entity_id: id }).orderBy('revision');
      expect(log.map(({ after }) => after?.max_tokens ?? null)).toEqual([null, 1, 2, 3, 4, null]);
      expect(contents(await replay(opened.database))).toEqual(contents(store.state));
    });
  });

  it('makes no revision of a plan that changes nothing', async () => {
    const before = await traces();
    const nothing = writing(() => 'nothing', { requestId: randomUUID() });
    expect(await write(nothing)).toEqual({ result: 'nothing', revision: store.state.revision });
    expect(await traces()).toEqual(before);
  });

  it('makes nothing of a rehearsal', async () => {
    const before = await traces();
    const answer = JSON.parse(text(await rehearse(store, { ...creating(), requestId: randomUUID() })));
    expect(answer).toEqual({ result: 0, revision: store.state.revision });
    expect(await traces()).toEqual(before);
  });

  it('gives ids when the plan creates more than its dry run saw', async () => {
    let wanted = 1;
    const growing = writing((_, draft) => {
      const ids = Array.from({ length: wanted }, () => create(draft).id);
      wanted = 5;
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

  describe('the log', () => {
    it('holds who, why, and the rows before and after', async () => {
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

    it('has no ciphertext, and a write does not touch the one that a row has', async () => {
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
      const touch = writing((state: State, draft: Draft) => {
        const before = state.configs.get(configId);
        if (before) draft.update('config', before, { ...before, max_tokens: 5 });
      });
      await write(touch);
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

  it('says of a write whose commit was followed by a failure that its outcome is unknown, never that nothing was written', async () => {
    const before = store.state.revision;
    const failing = vi.spyOn(store, 'apply').mockImplementationOnce(() => {
      throw Object.assign(new Error('too many connections'), { code: '53300' });
    });
    const requestId = randomUUID();
    const once = { ...creating(), requestId };
    await expect(transact(store, once)).rejects.toMatchObject({ reason: 'OUTCOME_UNKNOWN' });
    failing.mockRestore();
    expect((await readHead(knex)).revision).toBe(before + 1);
    await transact(store, once);
    expect((await readHead(knex)).revision).toBe(before + 1);
  });

  describe('request ids', () => {
    it('give the first answer again, without planning or writing again', async () => {
      const requestId = randomUUID();
      const first = await transact(store, { ...creating(), requestId });
      const before = await traces();
      const again = await transact(store, { ...creating(), requestId });
      expect(text(again)).toBe(text(first));
      expect(await traces()).toEqual(before);
    });

    it('are kept for each caller and each method by themselves', async () => {
      const requestId = randomUUID();
      const revisions = [];
      for (const over of [{}, { actor: 'another' }, { method: 'test/Other' }])
        revisions.push((await write({ ...creating(), requestId, ...over })).revision);
      expect(new Set(revisions).size).toBe(3);
    });

    it('are refused with another body, and that body is kept nowhere', async () => {
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

    it('of failures are free', async () => {
      const requestId = randomUUID();
      const failing = writing(() => {
        throw ServiceError.of('CANCELLED', {});
      });
      await errorOf(transact(store, { ...failing, requestId }));
      await expect(write({ ...creating(), requestId, body: () => Buffer.from('other') })).resolves.toBeDefined();
    });

    it('older than a day are not used, and are forgotten; younger ones stay', async () => {
      const [old, young] = [randomUUID(), randomUUID()];
      const age = (requestId: string, time: string) =>
        knex('idempotent_answers')
          .where({ request_id: requestId })
          .update({ created_at: knex.raw(`now() - interval '${time}'`) });
      const first = await write({ ...creating(), requestId: old });
      const kept = await write({ ...creating(), requestId: young });
      await age(old, '24 hours 1 second');
      await age(young, '23 hours 59 minutes');
      expect(await write({ ...creating(), requestId: young })).toEqual(kept);
      // Another body is no offence against an answer that is gone.
      const second = await write({ ...creating(), requestId: old, body: () => Buffer.from('other') });
      expect(second.revision).toBeGreaterThan(first.revision);
      expect(await write({ ...creating(), requestId: old, body: () => Buffer.from('other') })).toEqual(second);
      await age(old, '24 hours 1 second');
      await deleteExpiredResponses(knex);
      const left = await knex('idempotent_answers').whereIn('request_id', [old, young]).pluck('request_id');
      expect(left).toEqual([young]);
    });
  });

  describe('the feed', () => {
    it('resolves at once for what is reached, and later when it comes', async () => {
      const { signal } = new AbortController();
      await opened.feed.reached(store.state.revision, signal);
      const coming = opened.feed.reached(store.state.revision + 2, signal);
      let reached = false;
      void coming.then(() => {
        reached = true;
      });
      await write(creating());
      await opened.feed.poll();
      expect(reached).toBe(false);
      await write(creating());
      await coming;
      expect(reached).toBe(true);
    });

    it('rejects when the signal aborts, before or while it waits, and forgets who waited', async () => {
      const wanted = store.state.revision + 1000;
      const controller = new AbortController();
      const waiting = errorOf(opened.feed.reached(wanted, controller.signal));
      controller.abort();
      const metadata = { wanted: String(wanted), reached: String(store.state.revision) };
      expect(await waiting).toMatchObject({ reason: 'REVISION_NOT_REACHED', metadata });
      const late = await errorOf(opened.feed.reached(wanted, AbortSignal.abort()));
      expect(late).toMatchObject({ reason: 'REVISION_NOT_REACHED' });
      const listeners = Reflect.get(store, 'listeners') as Set<unknown>;
      expect(listeners.size).toBe(0);
    });

    it('brings what another store on the same database writes', async () => {
      const other = new Store(opened.database);
      other.replaceState(await loadState(knex));
      const { revision } = JSON.parse(text(await transact(other, creating())));
      expect(store.state.revision).toBe(revision - 1);
      await opened.feed.reached(revision, AbortSignal.timeout(10_000));
      expect(contents(store.state)).toEqual(contents(other.state));
    });

    it('catches up over more revisions than it reads at once', async () => {
      const behind = new Store(opened.database);
      behind.replaceState(await loadState(knex));
      for (let n = 0; n < 450; n++) await write(creating());
      await advance(behind, knex, await readHead(knex));
      expect(contents(behind.state)).toEqual(contents(store.state));
    });

    it('does not go back when writes overtake a look at the log', async () => {
      // A look that finds revision r+1 and waits for its rows; meanwhile this store writes r+2, and while the look
      // reads everything anew, r+3. What was acknowledged must stay to be seen.
      const mine = new Store(opened.database);
      mine.replaceState(await loadState(knex));
      await transact(store, creating());
      const head = await readHead(knex);
      const [log, reload] = [gate(), gate()];
      const looking = advance(mine, slowReader(knex, log, reload), head);
      await log.reached;
      await transact(mine, creating());
      log.open();
      await Promise.race([reload.reached, looking]);
      const { revision } = JSON.parse(text(await transact(mine, creating())));
      expect(mine.state.revision).toBe(revision);
      reload.open();
      await looking;
      expect(mine.state.revision).toBe(revision);
    });
  });

  if (engine === 'postgres') {
    describe('failures of the database', () => {
      const session = async () => {
        const client = new pg.Client({ connectionString: url });
        client.on('error', () => undefined);
        await client.connect();
        return client;
      };

      it('a lock that a stranger holds ends a write as WRITE_CONFLICT after the lock timeout, and reads go on', async () => {
        const stranger = await session();
        try {
          await stranger.query('begin');
          await stranger.query('select * from store_state for update');
          const before = (await readHead(knex)).revision;
          const started = performance.now();
          const error = await errorOf(transact(store, creating()));
          expect(error).toMatchObject({ reason: 'WRITE_CONFLICT', code: 'ABORTED' });
          const waited = performance.now() - started;
          expect(waited).toBeGreaterThan(limits.lockTimeoutMs * 0.9);
          expect(waited).toBeLessThan(limits.lockTimeoutMs * 3);
          await opened.feed.poll();
          expect(opened.feed.isWritable).toBe(true);
          await stranger.query('rollback');
          expect((await write(creating())).revision).toBe(before + 1);
        } finally {
          await stranger.end();
        }
      });

      it('a write has its timeouts, so that a frozen replica lets go of the counter row, and leaves none behind', async () => {
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

      /** Runs with a trigger on inserts of agents, put up and taken down by a session that outlives its victims. */
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
      ])('SQLSTATE %s is %s, leaves no trace and says nothing of the statement', async (code, reason) => {
        const before = await traces();
        await withTrigger('before insert', raise(code), async () => {
          const error = (await errorOf(transact(store, creating()))) as ServiceError;
          expect(error).toMatchObject({ reason });
          expect(`${error.message} ${JSON.stringify(error.metadata)}`).not.toMatch(/CANARY|insert|agent_configs/);
        });
        expect(await traces()).toEqual(before);
      });

      it('a connection that breaks before the commit is DATABASE_UNAVAILABLE: nothing was written', async () => {
        const before = await traces();
        await withTrigger('before insert', DIE, async () => {
          expect(await errorOf(transact(store, creating()))).toMatchObject({ reason: 'DATABASE_UNAVAILABLE' });
        });
        await vi.waitFor(async () => expect(await traces()).toEqual(before));
      });

      it('a connection that breaks in the commit is OUTCOME_UNKNOWN, and the same request_id finds out', async () => {
        const one = { ...creating(), requestId: randomUUID() };
        await withTrigger('at commit', DIE, async () => {
          expect(await errorOf(transact(store, one))).toMatchObject({ reason: 'OUTCOME_UNKNOWN' });
        });
        const { revision } = await vi.waitFor(() => write(one));
        expect((await write(one)).revision).toBe(revision);
        expect(await gapsInLog(opened.database)).toEqual([]);
      });

      it('a commit that the database refuses is no unknown outcome', async () => {
        const before = await traces();
        await withTrigger('at commit', raise('53100'), async () => {
          expect(await errorOf(transact(store, creating()))).toMatchObject({ reason: 'DATABASE_UNAVAILABLE' });
        });
        expect(await traces()).toEqual(before);
      });
    });

    describe('why there is a counter row', () => {
      /** Two transactions, the first of which commits last; a reader of all that is behind what it has seen, between. */
      async function schedule(
        number: (client: pg.Client) => Promise<number>,
      ): Promise<{ written: number[]; seen: number[] }> {
        const [slow, fast, reader] = await Promise.all([session(), session(), session()]);
        const seen: number[] = [];
        const read = async () => {
          const { rows } = await reader.query('select n from numbered where n > $1 order by n', [seen.at(-1) ?? 0]);
          seen.push(...rows.map(({ n }: { n: string }) => Number(n)));
        };
        const insert = async (client: pg.Client) => {
          const n = await number(client);
          await client.query('insert into numbered values ($1)', [n]);
          return n;
        };
        try {
          await slow.query('begin');
          const first = await insert(slow);
          await fast.query('begin');
          // With the counter row this waits for the first one, so it must not be waited for here.
          const second = insert(fast).then(async (n) => {
            await fast.query('commit');
            return n;
          });
          await Promise.race([second, new Promise((resolve) => setTimeout(resolve, 300))]);
          await read();
          await slow.query('commit');
          const written = [first, await second];
          await read();
          return { written, seen };
        } finally {
          await Promise.all([slow.end(), fast.end(), reader.end()]);
        }
      }

      const session = async () => {
        const client = new pg.Client({ connectionString: url });
        await client.connect();
        return client;
      };

      it('a reader of a sequence misses the transaction that commits late', async () => {
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

      it('a reader of the counter row, by the same schedule, misses nothing', async () => {
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

interface Gate {
  readonly reached: Promise<void>;
  readonly arrive: () => Promise<void>;
  readonly open: () => void;
}

/** A place at which somebody stops until let on. */
function gate(): Gate {
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

/** A Knex whose answers lie on the wire: the rows of the log at one gate, what a transaction has read at another. */
function slowReader(knex: Knex, log: Gate, transaction: Gate): Knex {
  return new Proxy(knex, {
    apply(target, _, [table]: [string]) {
      const query = target(table);
      if (table !== 'config_revisions') return query;
      const run = query.then.bind(query);
      const late = run as unknown as <T>(pass: (rows: T) => Promise<T>) => Promise<unknown>;
      return Object.assign(query, {
        // biome-ignore lint/suspicious/noThenProperty: a query of Knex is awaited by its `then`.
        then: (ok: (rows: unknown) => unknown, fail: (error: unknown) => unknown) =>
          late(async (rows) => {
            await log.arrive();
            return rows;
          }).then(ok, fail),
      });
    },
    get(target, property) {
      const value = Reflect.get(target, property);
      if (property !== 'transaction') return value;
      return async (...given: Parameters<Knex['transaction']>) => {
        const read = await target.transaction(...given);
        await transaction.arrive();
        return read;
      };
    },
  });
}
