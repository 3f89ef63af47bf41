import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { covers } from '../../domain/budget_index.js';
import type { Budget } from '../../domain/rows.js';
import { limits } from '../../limits.js';
import type { Connection } from '../connection.js';
import { budgetRow } from '../rows.js';
import { recordsOf } from '../usage/usage_records.js';
import type { View } from '../view.js';
import { ADMITTED, type Admission, type AttemptRequest } from './admission.js';
import { AgentBudget } from './agent_budget.js';
import { BudgetStates } from './budget_states.js';
import { ReservationCalls } from './reservation_calls.js';

/** The size of the attempts that reservations cover. */
export interface ReservationOptions {
  /**
   * The expected maximum of input tokens of an attempt, 0 to 100 000 000. If attempts of this process use more, later
   * reservations use the highest number so far. Default: 8 192.
   */
  readonly inputTokens?: number | undefined;
  /**
   * The number of attempts of one reservation, 1 to 1000; the service may grant fewer. Default: the service chooses it.
   */
  readonly attempts?: number | undefined;
}

interface BudgetLeasesParts {
  readonly calls: Connection;
  readonly stream: Connection;
  readonly options: ReservationOptions;
  /** The newest held state; undefined: no state is held. */
  readonly view: () => View | undefined;
}

/** How long the close of a client waits for the end of its reservations. */
const CLOSE_MS = 2_000;
const DEFAULT_INPUT_TOKENS = 8_192;

/** The budgets of all agents of a client: their states and their reservations. */
export class BudgetLeases {
  readonly states = new BudgetStates();
  private readonly byAgent = new Map<string, AgentBudget>();
  private readonly calls: ReservationCalls;
  private inputTokens: number;
  private isClosed = false;

  constructor(private readonly parts: BudgetLeasesParts) {
    const { calls, stream, options } = parts;
    this.calls = new ReservationCalls(calls, stream);
    this.inputTokens = options.inputTokens ?? DEFAULT_INPUT_TOKENS;
  }

  /** Whether the budgets permit an attempt of an agent. */
  admit(agent: string, request: AttemptRequest): Admission | Promise<Admission> {
    if (this.isClosed || this.limiting(agent, request.runId).length === 0) return ADMITTED;
    return this.of(agent, request.runId).admit(request);
  }

  /** Wraps a receipt listener: settles the attempts of the call before the receipt is emitted. */
  settleBefore(emit: (receipt: Receipt) => void): (receipt: Receipt) => void {
    return (receipt) => {
      this.settle(receipt);
      emit(receipt);
    };
  }

  private settle(receipt: Receipt): void {
    const byReservation = new Map<string, UsageRecord[]>();
    for (const record of recordsOf(receipt)) {
      const { reservation_id: id = '', usage } = record.attempt ?? {};
      const tokens = Math.min(usage?.input_tokens ?? 0, limits.attemptTokens.max);
      if (tokens > this.inputTokens) this.inputTokens = tokens;
      if (id !== '') byReservation.set(id, [...(byReservation.get(id) ?? []), record]);
    }
    const agent = this.byAgent.get(keyOf(receipt.agent, receipt.run_id));
    for (const [id, records] of byReservation) agent?.settle(id, records);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    // Reservations that are not committed by then expire.
    const timer = setTimeout(() => this.calls.end(), CLOSE_MS);
    await Promise.all([...this.byAgent.values()].map((agent) => agent.close()));
    clearTimeout(timer);
    this.calls.end();
  }

  private of(agent: string, runId: string): AgentBudget {
    const key = keyOf(agent, runId);
    const existing = this.byAgent.get(key);
    if (existing) return existing;
    const budget = new AgentBudget(agent, runId, {
      calls: this.calls,
      limiting: () => this.limiting(agent, runId),
      revision: () => this.parts.view()?.revision ?? 0n,
      inputTokens: () => this.inputTokens,
      attempts: this.parts.options.attempts,
      onIdle: () => {
        if (runId !== '') this.byAgent.delete(key);
      },
    });
    this.byAgent.set(key, budget);
    return budget;
  }

  private limiting(agent: string, runId: string) {
    const view = this.parts.view();
    if (!view) return [];
    return budgetsOf(view, agent, runId !== '').flatMap((budget) =>
      budget.enabled && budget.action !== 'BUDGET_ACTION_WARN' ? [this.states.covering(budget, runId)] : [],
    );
  }
}

const keyOf = (agent: string, runId: string) => `${agent}\0${runId}`;

/** The budgets that cover an agent in a view, enabled or not. */
export function budgetsOf(view: View, name: string, withRuns: boolean): Budget[] {
  const held = view.agent(name)?.message;
  if (!held?.agent) return [];
  const { id, agent_type } = held.agent;
  const shared = view.catalogue.budgets.filter((budget) => covers(budget, { id, agent_type }, withRuns));
  // A cache file of an earlier release has no budgets.
  return [...shared, ...(held.budgets ?? []).map(budgetRow)];
}
