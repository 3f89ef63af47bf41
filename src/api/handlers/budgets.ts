import { Budget as BudgetMessage } from '../../../gen/ts/agentllm/v1/budget.js';
import {
  type BudgetServiceService,
  type CreateBudgetRequest,
  type GetBudgetStateRequest,
  type ListBudgetsRequest,
  ListBudgetsResponse,
} from '../../../gen/ts/agentllm/v1/budget_service.js';
import {
  budgetFields,
  budgetOutputOnly,
  checkBudget,
  immutableBudgetFields,
  newBudget,
  newBudgetFields,
  patchBudget,
} from '../../domain/budget.js';
import { amountsAt, counterKey } from '../../domain/budget_counter.js';
import { covers } from '../../domain/budget_index.js';
import { budgetPeriod } from '../../domain/budget_period.js';
import { readPatch } from '../../domain/patch.js';
import type { Budget } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { textProblem } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import type { BudgetStatus } from '../../feed/budget_monitor.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { readCounters } from '../../store/budgets/counters.js';
import { onDatabase } from '../../store/failure.js';
import type { Handlers } from '../dispatch/method.js';
import { budgetStateMessage } from '../messages/budgets.js';
import { budgetMessage, etagOf } from '../messages/entities.js';
import { checkPage, pageFrom, pageResponse, valuesFrom } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { currentStatuses } from './budget_statuses.js';
import { read, write } from './read_write.js';
import { agentOf, budgetOf, checkEtag, checkRef, requireText } from './requests.js';
import { reservationHandlers } from './reservations.js';

/** The handlers of BudgetService. */
export function budgetService(backend: Backend): Handlers<typeof BudgetServiceService> {
  const budgetResponse = (budget: Budget, revision: bigint, state: State) => ({
    budget: budgetMessage(state, budget),
    revision,
  });
  return {
    createBudget: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const row = newRow(state, call.request, problems);
          problems.throwIfAny();
          refuseTakenName(state, row.name);
          return draft.create('budget', row);
        },
        respond: budgetResponse,
      }),

    getBudget: (call) =>
      read(backend, call, (state) => {
        requireText({ name: call.request.name });
        return { budget: budgetMessage(state, budgetOf(state, call.request.name)), revision: BigInt(state.revision) };
      }),

    listBudgets: (call) => read(backend, call, (state) => listBudgets(backend, state, call.request)),

    updateBudget: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.budget ?? BudgetMessage.create();
          const before = state.budgets.named(body.name);
          const stored = before && budgetMessage(state, before);
          const mask = call.request.update_mask ?? [];
          const specs = budgetFields;
          const patch = readPatch({ body, mask, specs, outputOnly: budgetOutputOnly, at: 'budget', stored });
          if (body.name === '') problems.add('budget.name', 'is required');
          problems.addAll(patch.violations);
          if (stored) addImmutable(problems, body, stored);
          if (!before) problems.throwIfAny();
          const found = budgetOf(state, body.name);
          const row = patchBudget(state, found, patch);
          problems.addAll(checkBudget(state, row, patch));
          problems.throwIfAny();
          checkEtag(body.etag, etagOf(state, found), `Budget ${JSON.stringify(found.name)}`);
          return draft.update('budget', found, row);
        },
        respond: budgetResponse,
      }),

    deleteBudget: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          if (call.request.name === '') problems.add('name', 'is required');
          problems.throwIfAny();
          const budget = budgetOf(state, call.request.name);
          checkEtag(call.request.etag, etagOf(state, budget), `Budget ${JSON.stringify(budget.name)}`);
          draft.remove('budget', budget);
        },
        respond: (_, revision) => ({ revision }),
      }),

    getBudgetState: (call) =>
      read(backend, call, async (state) => {
        const budget = checkStateRequest(state, call.request);
        const status = await pastStatus(backend, budget, call.request);
        return { state: budgetStateMessage(status), revision: BigInt(state.revision) };
      }),

    ...reservationHandlers(backend),
  };
}

/** Builds the row of a new budget, and adds all problems of the request. */
function newRow(state: State, request: CreateBudgetRequest, problems: Problems): Budget {
  const body = request.budget ?? BudgetMessage.create();
  const patch = readPatch({ body, mask: [], specs: newBudgetFields, outputOnly: budgetOutputOnly, at: 'budget' });
  problems.addAll(patch.violations);
  const row = patchBudget(state, newBudget(), patch);
  problems.addAll(checkBudget(state, row, patch));
  if (row.scope !== 'BUDGET_SCOPE_AGENT') {
    if (request.agent) problems.add('agent', 'must be absent without BUDGET_SCOPE_AGENT');
    return row;
  }
  checkRef(problems, request.agent);
  problems.throwIfAny();
  return { ...row, agent_id: agentOf(state, request.agent).id };
}

/** An update may contain an immutable field only with its stored value. */
function addImmutable(problems: Problems, body: BudgetMessage, stored: BudgetMessage): void {
  const absent = BudgetMessage.create() as unknown as Readonly<Record<string, unknown>>;
  for (const field of immutableBudgetFields) {
    const value = (body as unknown as Readonly<Record<string, unknown>>)[field];
    const current = (stored as unknown as Readonly<Record<string, unknown>>)[field];
    if (value !== absent[field] && value !== current)
      problems.add(
        `budget.${field}`,
        `is ${current === '' || current === undefined ? 'absent' : current} and cannot be changed`,
      );
  }
}

function refuseTakenName(state: State, name: string): void {
  if (state.budgets.named(name))
    throw ServiceError.of('BUDGET_NAME_TAKEN', { budget: name }, { resources: [{ type: 'budget', name }] });
}

async function listBudgets(backend: Backend, state: State, request: ListBudgetsRequest): Promise<Buffer> {
  const problems = new Problems();
  checkPage(problems, request);
  if (request.agent) checkRef(problems, request.agent);
  problems.throwIfAny();
  const agent = request.agent && agentOf(state, request.agent);
  const listed = {
    values: state.budgets.inOrder,
    keyOf: (budget: Budget) => [budget.name],
    keep: (budget: Budget) => agent === undefined || covers(budget, agent, true),
  };
  const page = pageFrom(request, ['budgets', agent?.id, request.with_state]);
  const found = valuesFrom(page, listed);
  const statuses = request.with_state ? await currentStatuses(backend, found) : new Map<number, BudgetStatus>();
  return pageResponse(page, found, {
    type: ListBudgetsResponse,
    revision: state.revision,
    keyOf: listed.keyOf,
    rowOf: (budget) => {
      const status = statuses.get(budget.id);
      return { budgets: [budgetMessage(state, budget)], states: status ? [budgetStateMessage(status)] : [] };
    },
  });
}

function checkStateRequest(state: State, { name, run_id, periods_ago }: GetBudgetStateRequest): Budget {
  const problems = new Problems();
  const { min, max } = limits.periodsAgo;
  if (name === '') problems.add('name', 'is required');
  problems.add('run_id', textProblem(run_id, limits.runId));
  if (periods_ago < min || periods_ago > max)
    problems.add('periods_ago', `must be ${min} to ${max}, not ${periods_ago}`);
  const budget = state.budgets.named(name);
  if (!budget) problems.throwIfAny();
  const found = budgetOf(state, name);
  const isForRuns = found.scope === 'BUDGET_SCOPE_RUN';
  if (isForRuns && run_id === '') problems.add('run_id', 'is required for a budget for runs');
  if (!isForRuns && run_id !== '') problems.add('run_id', 'must be empty: the budget is not for runs');
  const isCalendar = found.period === 'BUDGET_PERIOD_DAY' || found.period === 'BUDGET_PERIOD_MONTH';
  if (!isCalendar && periods_ago > 0) problems.add('periods_ago', `must be 0 for ${found.period}`);
  problems.throwIfAny();
  return found;
}

async function pastStatus(
  { store }: Backend,
  budget: Budget,
  { run_id, periods_ago }: GetBudgetStateRequest,
): Promise<BudgetStatus> {
  let at = new Date();
  for (let ago = 0; ago < periods_ago; ago++) at = new Date(budgetPeriod(budget, at).start.getTime() - 1);
  const key = counterKey(budget, run_id, at);
  const [counter] = await onDatabase(store, (db) => readCounters(db, [key]));
  return { budget, run_id: key.run_id, amounts: amountsAt(budget, counter, at) };
}
