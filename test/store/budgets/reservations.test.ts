import { randomInt, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { counterKey, spentAt } from '../../../src/domain/budget_counter.js';
import type { Agent, Budget } from '../../../src/domain/rows.js';
import { chargeBudgets, type PricedUsage } from '../../../src/store/budgets/charge.js';
import { readCounters } from '../../../src/store/budgets/counters.js';
import { ReservationWriter } from '../../../src/store/budgets/reservation_writer.js';
import {
  deleteOldBudgetRows,
  endReservation,
  expireReservations,
  readReservation,
  renewReservation,
} from '../../../src/store/budgets/reservations.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';
import { createAgent, createBudget, deleteBudget, requestOf, reserveIn } from './support.js';

const HOUR_MS = 3_600_000;

describe.each(['embedded', 'postgres'] as const)('reservations on %s', (engine) => {
  let opened: TestStore;
  let agent: Agent;
  let stopDatabase = async () => {};

  beforeAll(async () => {
    let url: string | undefined;
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      url = await postgres.createDatabase('migrated');
    }
    opened = await openStore({ url });
    agent = await createAgent(opened);
  });

  afterAll(async () => {
    await opened?.close();
    await stopDatabase();
  });

  const knex = () => opened.database.knex;
  const ofAgent = (fields: Partial<Budget> = {}) => createBudget(opened, { agent_id: agent.id, ...fields });
  const counterOf = async (budget: Budget, run = '', at = new Date()) =>
    (await readCounters(knex(), [counterKey(budget, run, at)]))[0];
  const usage = (fields: Partial<PricedUsage>): PricedUsage => ({
    agent_id: agent.id,
    run_id: '',
    started_at: new Date(),
    cost_nano_usd: 1n,
    reservation_id: '',
    ...fields,
  });
  const charge = (...attempts: PricedUsage[]) =>
    knex().transaction((tx) => chargeBudgets(tx, opened.store.state, attempts));
  const end = (id: string) => endReservation(knex(), { id, agentId: agent.id, state: 'released' });

  it('hold the amount in every budget, or in none', async () => {
    const [wide, narrow] = [await ofAgent({ limit_nano_usd: 500n }), await ofAgent({ limit_nano_usd: 100n })];
    const first = await reserveIn(opened, agent, [wide, narrow], { cost: 60n });
    expect(first.granted).toMatchObject({ amount: 60n, held: 60n, attempts: 1, state: 'open' });
    const second = await reserveIn(opened, agent, [wide, narrow], { cost: 60n });
    expect(second).toMatchObject({ granted: undefined, insufficient: [narrow.id] });
    expect(await counterOf(wide)).toMatchObject({ reserved: 60n, open: 1 });
    expect(await counterOf(narrow)).toMatchObject({ reserved: 60n, open: 1 });
  });

  it('take at most an eighth of the room, and at least one attempt', async () => {
    const budget = await ofAgent({ limit_nano_usd: 800n });
    const wish = { cost: 10n, attempts: 1000 };
    expect((await reserveIn(opened, agent, [budget], wish)).granted).toMatchObject({ attempts: 10, amount: 100n });
    expect((await reserveIn(opened, agent, [budget], { cost: 700n, attempts: 5 })).granted?.attempts).toBe(1);
    expect((await reserveIn(opened, agent, [budget], { cost: 1n })).insufficient).toEqual([budget.id]);
  });

  it('are made once for an id', async () => {
    const budget = await ofAgent();
    const id = randomUUID();
    const wish = { cost: 5n, id };
    const outcomes = await Promise.all([1, 2, 3, 4].map(() => reserveIn(opened, agent, [budget], wish)));
    expect(outcomes.filter(({ granted }) => granted)).toHaveLength(1);
    expect(outcomes.filter(({ exists }) => exists)).toHaveLength(3);
    expect(await counterOf(budget)).toMatchObject({ reserved: 5n, open: 1 });
  });

  it('of concurrent callers are made in full while the remaining amount suffices', async () => {
    const [wide, narrow] = [await ofAgent({ limit_nano_usd: 10_000n }), await ofAgent({ limit_nano_usd: 2000n })];
    const costs = Array.from({ length: 20 }, (_, n) => BigInt(n + 1));
    const wish = (cost: bigint) => ({ cost, attempts: 2 });
    const outcomes = await Promise.all(
      costs.map((cost, n) => reserveIn(opened, agent, n % 2 ? [wide, narrow] : [wide], wish(cost))),
    );
    expect(outcomes.map(({ granted }) => granted?.amount)).toEqual(costs.map((cost) => cost * 2n));
    expect(await counterOf(wide)).toMatchObject({ reserved: 420n, open: 20 });
    expect(await counterOf(narrow)).toMatchObject({ reserved: 220n, open: 10 });
    const { reservation_id = '' } = outcomes[1]?.granted ?? {};
    expect(await readReservation(knex(), reservation_id, agent.id)).toMatchObject({
      amount: 4n,
      attempts: 2,
      budget_ids: [wide.id, narrow.id],
    });
  });

  it('of callers at the same time are made one by one when there is not room for all', async () => {
    const [wide, narrow] = [await ofAgent({ limit_nano_usd: 10_000n }), await ofAgent({ limit_nano_usd: 55n })];
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, () => reserveIn(opened, agent, [wide, narrow], { cost: 10n })),
    );
    expect(outcomes.filter(({ granted }) => granted)).toHaveLength(5);
    for (const { granted, insufficient } of outcomes) expect(insufficient).toEqual(granted ? [] : [narrow.id]);
    expect(await counterOf(wide)).toMatchObject({ reserved: 50n, open: 5 });
    expect(await counterOf(narrow)).toMatchObject({ reserved: 50n, open: 5 });
  });

  it('of callers at the same time do not fail because of one of them', async () => {
    const budget = await ofAgent({ limit_nano_usd: 1_000_000_000_000_000_000n });
    const other = await createAgent(opened);
    const wishes = [{ cost: 1n }, { cost: 1n, id: 'no UUID' }, { cost: 1n }, { cost: 10n ** 18n, attempts: 1000 }];
    const settled = await Promise.allSettled(
      wishes.map((wish, n) => reserveIn(opened, n === 2 ? other : agent, [budget], wish)),
    );
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(await counterOf(budget)).toMatchObject({ reserved: 2n, open: 2 });
  });

  it('of two replicas at the same time never exceed a limit', async () => {
    const [day, total] = [await ofAgent({ period: 'BUDGET_PERIOD_DAY', limit_nano_usd: 900n }), await ofAgent()];
    const replicas = [new ReservationWriter(opened), new ReservationWriter(opened)];
    let [granted, amount] = [0, 0n];
    const callers = Array.from({ length: 16 }, async (_, n) => {
      for (let call = 0; call < 12; call++) {
        const budgets = call % 3 === 0 ? [total] : [total, day];
        const request = requestOf(agent, budgets, { cost: BigInt(1 + ((n + call) % 9)) });
        const outcome = await (replicas[n % 2] as ReservationWriter).reserve(request, undefined);
        granted += outcome.granted ? 1 : 0;
        amount += outcome.granted?.amount ?? 0n;
      }
    });
    await Promise.all(callers);
    expect(await counterOf(total)).toMatchObject({ reserved: amount, open: granted });
    expect(amount).toBeGreaterThan(800n);
    expect(amount).toBeLessThanOrEqual(1000n);
  });

  it('need no budget', async () => {
    const { granted } = await reserveIn(opened, agent, [], { cost: 0n, attempts: 7 });
    expect(granted).toMatchObject({ amount: 0n, attempts: 7, budget_ids: [] });
  });

  it('pay for attempts, and the rest is released at their end', async () => {
    const budget = await ofAgent();
    const { granted } = await reserveIn(opened, agent, [budget], { cost: 50n });
    const id = granted?.reservation_id as string;
    await charge(usage({ cost_nano_usd: 20n, reservation_id: id }), usage({ cost_nano_usd: 7n }));
    expect(await counterOf(budget)).toMatchObject({ spent: 27n, committed: 20n, reserved: 30n, open: 1 });
    expect(await readReservation(knex(), id, agent.id)).toMatchObject({ amount: 50n, held: 30n });
    expect(await end(id)).toBe(30n);
    expect(await end(id)).toBe(0n);
    expect(await counterOf(budget)).toMatchObject({ spent: 27n, committed: 20n, reserved: 0n, open: 0 });
  });

  it('do not pay for more than they hold, and the excess prevents the next one', async () => {
    const budget = await ofAgent({ limit_nano_usd: 100n });
    const { granted } = await reserveIn(opened, agent, [budget], { cost: 40n });
    await charge(usage({ cost_nano_usd: 130n, reservation_id: granted?.reservation_id as string }));
    expect(await counterOf(budget)).toMatchObject({ spent: 130n, committed: 40n, reserved: 0n });
    expect((await reserveIn(opened, agent, [budget], { cost: 1n })).insufficient).toEqual([budget.id]);
  });

  it('count attempts without a price, and take nothing for them', async () => {
    const budget = await ofAgent();
    const { granted } = await reserveIn(opened, agent, [budget], { cost: 40n });
    await charge(usage({ cost_nano_usd: null, reservation_id: granted?.reservation_id as string }));
    expect(await counterOf(budget)).toMatchObject({ spent: 0n, unpriced: 1, reserved: 40n });
  });

  it('do not pay for another agent', async () => {
    const budget = await ofAgent();
    const other = await createAgent(opened);
    const { granted } = await reserveIn(opened, agent, [budget], { cost: 40n });
    await charge(usage({ agent_id: other.id, reservation_id: granted?.reservation_id as string }));
    expect(await counterOf(budget)).toMatchObject({ spent: 0n, reserved: 40n });
  });

  it('expire, and then hold nothing', async () => {
    const budget = await ofAgent();
    const { granted } = await reserveIn(opened, agent, [budget], { cost: 40n, lifetimeMs: 1 });
    const id = granted?.reservation_id as string;
    await expect.poll(async () => (await readReservation(knex(), id, agent.id))?.state).toBe('expired');
    const renewal = { id, agentId: agent.id, lifetimeMs: 60_000, until: undefined };
    expect(await renewReservation(knex(), renewal)).toBeUndefined();
    expect(await expireReservations(knex(), { rowsAtOnce: 1 })).toBeGreaterThanOrEqual(1);
    expect(await counterOf(budget)).toMatchObject({ reserved: 0n, open: 0 });
    await charge(usage({ cost_nano_usd: 9n, reservation_id: id }));
    expect(await counterOf(budget)).toMatchObject({ spent: 9n, committed: 0n, reserved: 0n });
  });

  it('are renewed up to the end of a period', async () => {
    const budget = await ofAgent();
    const { granted } = await reserveIn(opened, agent, [budget], { cost: 4n });
    const until = new Date(Date.now() + 90_000);
    const id = granted?.reservation_id as string;
    const renewed = await renewReservation(knex(), { id, agentId: agent.id, lifetimeMs: 3_600_000, until });
    expect(renewed?.expires_at).toEqual(until);
  });

  it('give each run the whole limit', async () => {
    const budget = await createBudget(opened, { agent_id: null, scope: 'BUDGET_SCOPE_RUN', limit_nano_usd: 10n });
    const inRun = (run_id: string) => reserveIn(opened, agent, [budget], { cost: 10n, run_id });
    const first = await inRun('a');
    expect(first.granted).toBeDefined();
    expect((await inRun('b')).granted).toBeDefined();
    expect((await inRun('a')).insufficient).toEqual([budget.id]);
    await charge(usage({ run_id: 'a', cost_nano_usd: 4n, reservation_id: first.granted?.reservation_id as string }));
    expect(await counterOf(budget, 'a')).toMatchObject({ spent: 4n, committed: 4n, reserved: 6n });
    await end(first.granted?.reservation_id as string);
    expect(await counterOf(budget, 'a')).toMatchObject({ reserved: 0n, open: 0 });
    expect(await counterOf(budget, 'b')).toMatchObject({ reserved: 10n, open: 1 });
    await deleteBudget(opened, budget);
  });

  it('see the cost of the last hours only', async () => {
    const budget = await ofAgent({ period: 'BUDGET_PERIOD_ROLLING_HOURS', rolling_hours: 3, limit_nano_usd: 100n });
    const now = new Date();
    const ago = (hours: number) => new Date(now.getTime() - hours * HOUR_MS);
    await charge(
      usage({ started_at: ago(2), cost_nano_usd: 30n }),
      usage({ started_at: ago(0), cost_nano_usd: 30n }),
      usage({ started_at: ago(3), cost_nano_usd: 1000n }),
    );
    const counter = await counterOf(budget);
    expect(counter).toMatchObject({ spent: 1060n });
    expect(counter && spentAt(counter, now)).toBe(60n);
    expect((await reserveIn(opened, agent, [budget], { cost: 41n, now })).insufficient).toEqual([budget.id]);
    expect((await reserveIn(opened, agent, [budget], { cost: 40n, now })).granted).toBeDefined();
    const later = new Date(now.getTime() + HOUR_MS);
    expect((await reserveIn(opened, agent, [budget], { cost: 30n, now: later })).granted).toBeDefined();
    expect((await reserveIn(opened, agent, [budget], { cost: 1n, now: later })).insufficient).toEqual([budget.id]);
    await deleteBudget(opened, budget);
  });

  it('count an attempt in the day in which it began, in the time zone of the budget', async () => {
    const budget = await ofAgent({ period: 'BUDGET_PERIOD_DAY', time_zone: 'Europe/Berlin' });
    // The first instant of 29 March 2026 in Berlin, a day of 23 hours.
    const start = new Date('2026-03-28T23:00:00Z');
    const last = new Date('2026-03-29T21:59:59.999Z');
    const before = new Date(start.getTime() - 1);
    const after = new Date(last.getTime() + 1);
    await charge(
      ...[before, start, last, after].map((started_at, at) => usage({ started_at, cost_nano_usd: BigInt(10 ** at) })),
    );
    const spent = async (at: Date) => (await counterOf(budget, '', at))?.spent;
    expect([await spent(before), await spent(start), await spent(last), await spent(after)]).toEqual([
      1n,
      110n,
      110n,
      1000n,
    ]);
    await deleteBudget(opened, budget);
  });

  it('outlive a budget that is deleted', async () => {
    const [kept, deleted] = [await ofAgent(), await ofAgent()];
    const { granted } = await reserveIn(opened, agent, [kept, deleted], { cost: 40n });
    await deleteBudget(opened, deleted);
    const id = granted?.reservation_id as string;
    await charge(usage({ cost_nano_usd: 10n, reservation_id: id }));
    expect(await counterOf(kept)).toMatchObject({ spent: 10n, committed: 10n, reserved: 30n });
    expect(await end(id)).toBe(30n);
    expect((await reserveIn(opened, agent, [deleted], { cost: 1n })).granted).toMatchObject({ budget_ids: [] });
  });

  it('are limited in number', async () => {
    const other = await createAgent(opened);
    await knex().raw(
      `insert into llm_budget_reservations (reservation_id, agent_id, budget_ids, period_starts, amount_nano_usd,
         held_nano_usd, attempts, actor, expires_at)
       select md5(n::text)::uuid, ?, '{}', '{}', 0, 0, 1, 'tester', now() + interval '1 hour' from generate_series(1, 1000) n`,
      [other.id],
    );
    expect(await reserveIn(opened, other, [], { cost: 0n })).toMatchObject({ granted: undefined, tooMany: true });
  });

  it('are deleted a week after their end', async () => {
    const ago = (days: number) => new Date(Date.now() - days * 24 * HOUR_MS);
    const ids = [randomUUID(), randomUUID()];
    const row = { agent_id: agent.id, budget_ids: '{}', period_starts: '{}', amount_nano_usd: 0, held_nano_usd: 0 };
    const common = { ...row, attempts: 1, state: 'released', actor: 'tester', expires_at: ago(9) };
    await knex()('llm_budget_reservations').insert([
      { ...common, reservation_id: ids[0], ended_at: ago(8) },
      { ...common, reservation_id: ids[1], ended_at: ago(6) },
    ]);
    await deleteOldBudgetRows(knex());
    const left = await knex()('llm_budget_reservations').whereIn('reservation_id', ids).pluck('reservation_id');
    expect(left).toEqual([ids[1]]);
  });

  it('agree with a model after random operations, and never exceed a limit', async () => {
    const budgets = [await ofAgent({ limit_nano_usd: 500n }), await ofAgent({ limit_nano_usd: 300n })];
    const model = new Model(budgets);
    for (let step = 0; step < 250; step++) {
      const chosen = budgets.filter(() => randomInt(3) > 0);
      const open = [...model.open.keys()];
      const id = open.length > 0 ? (open[randomInt(open.length)] as string) : '';
      const action = randomInt(10);
      if (action < 4) {
        const cost = BigInt(1 + randomInt(40));
        const { granted } = await reserveIn(opened, agent, chosen, { cost, attempts: 1 + randomInt(3) });
        expect(granted !== undefined, `step ${step}`).toBe(model.hasRoom(chosen, cost));
        if (granted) model.reserve(granted.reservation_id, chosen, granted.amount);
      } else if (action < 8) {
        const costs = Array.from({ length: 1 + randomInt(4) }, () => BigInt(randomInt(12)));
        const others = costs.map((cost, at) => ({ cost, id: at % 3 === 2 ? '' : id }));
        await charge(...others.map(({ cost, id: reservation_id }) => usage({ cost_nano_usd: cost, reservation_id })));
        for (const other of others) model.charge(other.id, other.cost);
      } else if (id !== '') expect(await end(id)).toBe(model.end(id));
      for (const budget of budgets) {
        const { spent = 0n, reserved = 0n, committed = 0n } = (await counterOf(budget)) ?? {};
        expect({ spent, reserved, committed }, `step ${step}`).toEqual(model.amounts(budget));
        expect(reserved + committed).toBeLessThanOrEqual(budget.limit_nano_usd);
      }
    }
  });
});

/** The amounts of budgets as plain sums. */
class Model {
  readonly open = new Map<string, { readonly budgets: readonly Budget[]; held: bigint }>();
  private readonly spent = new Map<number, bigint>();
  private readonly committed = new Map<number, bigint>();

  constructor(private readonly budgets: readonly Budget[]) {}

  hasRoom(budgets: readonly Budget[], cost: bigint): boolean {
    return budgets.every((budget) => {
      const { spent, reserved } = this.amounts(budget);
      return budget.limit_nano_usd - spent - reserved >= cost;
    });
  }

  reserve(id: string, budgets: readonly Budget[], held: bigint): void {
    this.open.set(id, { budgets, held });
  }

  charge(id: string, cost: bigint): void {
    const reservation = this.open.get(id);
    const taken = reservation ? (cost < reservation.held ? cost : reservation.held) : 0n;
    if (reservation) reservation.held -= taken;
    for (const budget of this.budgets) {
      this.add(this.spent, budget, cost);
      if (reservation?.budgets.includes(budget)) this.add(this.committed, budget, taken);
    }
  }

  end(id: string): bigint {
    const held = this.open.get(id)?.held ?? 0n;
    this.open.delete(id);
    return held;
  }

  amounts(budget: Budget) {
    const reservations = [...this.open.values()].filter(({ budgets }) => budgets.includes(budget));
    return {
      spent: this.spent.get(budget.id) ?? 0n,
      reserved: reservations.reduce((sum, { held }) => sum + held, 0n),
      committed: this.committed.get(budget.id) ?? 0n,
    };
  }

  private add(amounts: Map<number, bigint>, { id }: Budget, amount: bigint): void {
    amounts.set(id, (amounts.get(id) ?? 0n) + amount);
  }
}
