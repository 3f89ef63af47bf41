import { randomUUID } from 'node:crypto';
import { newAgent } from '../../../src/domain/agent.js';
import { newBudget } from '../../../src/domain/budget.js';
import { counterKey } from '../../../src/domain/budget_counter.js';
import { budgetPeriod, hourOf } from '../../../src/domain/budget_period.js';
import type { Draft } from '../../../src/domain/draft.js';
import type { Agent, Budget } from '../../../src/domain/rows.js';
import { ReservationWriter } from '../../../src/store/budgets/reservation_writer.js';
import type { ReservationRequest, ReserveOutcome } from '../../../src/store/budgets/reserve.js';
import { transact } from '../../../src/store/write/transact.js';
import { unique } from '../../support/service.js';
import type { TestStore } from '../../support/store.js';

/** Executes a plan as one write. */
async function write({ store }: TestStore, plan: (draft: Draft) => number): Promise<number> {
  const bytes = await transact(store, {
    actor: 'tester',
    method: 'test/Write',
    requestId: undefined,
    reason: undefined,
    plan: (_, draft) => plan(draft),
    encodeResponse: (id) => Buffer.from(String(id)),
    body: () => Buffer.alloc(0),
  });
  return Number(Buffer.from(bytes).toString());
}

export async function createAgent(opened: TestStore): Promise<Agent> {
  const row = { ...newAgent(), name: unique('agent'), agent_type: 'analyst' };
  const id = await write(opened, (draft) => draft.create('agent', row).id);
  return opened.store.state.agents.get(id) as Agent;
}

/** A budget of the whole time for an agent with a limit of 1000 nano-USD, by default. */
export async function createBudget(
  opened: TestStore,
  fields: Partial<Budget> & Pick<Budget, 'agent_id'>,
): Promise<Budget> {
  const row: Budget = {
    ...newBudget(),
    name: unique('budget'),
    scope: 'BUDGET_SCOPE_AGENT',
    period: 'BUDGET_PERIOD_TOTAL',
    limit_nano_usd: 1000n,
    action: 'BUDGET_ACTION_BLOCK',
    ...fields,
  };
  const id = await write(opened, (draft) => draft.create('budget', row).id);
  return opened.store.state.budgets.withId(id) as Budget;
}

export const deleteBudget = (opened: TestStore, budget: Budget): Promise<number> =>
  write(opened, (draft) => {
    draft.remove('budget', opened.store.state.budgets.withId(budget.id) as Budget);
    return 0;
  });

interface Wish {
  readonly cost: bigint;
  readonly attempts?: number;
  readonly run_id?: string;
  readonly lifetimeMs?: number;
  readonly id?: string;
  readonly now?: Date;
}

/** One writer for each replica. */
const writers = new WeakMap<TestStore['database'], ReservationWriter>();

/** Reserves in budgets, as the handler does. */
export function reserveIn(
  { database }: Pick<TestStore, 'database'>,
  agent: Agent,
  budgets: readonly Budget[],
  wish: Wish,
): Promise<ReserveOutcome> {
  const writer = writers.get(database) ?? new ReservationWriter({ database });
  writers.set(database, writer);
  return writer.reserve(requestOf(agent, budgets, wish), undefined);
}

export function requestOf(
  agent: Agent,
  budgets: readonly Budget[],
  { cost, attempts = 1, run_id = '', lifetimeMs = 60_000, id = randomUUID(), now = new Date() }: Wish,
): ReservationRequest {
  return {
    reservation_id: id,
    agent_id: agent.id,
    run_id,
    actor: 'tester',
    required: budgets.map((budget) => ({
      budget,
      key: counterKey(budget, run_id, now),
      end: budget.rolling_hours === null ? budgetPeriod(budget, now).end : undefined,
    })),
    cost,
    attempts,
    lifetimeMs,
    until: undefined,
    hour: hourOf(now),
  };
}
