import type { Command } from 'commander';
import { Budget, type BudgetState } from '../../../gen/ts/agentllm/v1/budget.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import { type List, limitInput, minRevision, readAll, tableOf } from '../kit/lists.js';
import { type Group, lines, record, recordOf, small } from '../kit/print.js';
import { type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { agent, amount, budget, choice, integer, model, negatableFlag, text, word } from '../kit/values.js';
import { etagInput, requireChange, writeInputs, writeSummary } from '../kit/writes.js';

const body: Body = { at: 'budget', type: 'Budget', message: Budget };

const nameArgument = (to: string): Input => ({
  name: '<name>',
  to,
  kind: budget,
  mask: '',
  help: 'the name, 1 to 100 characters',
});

/** The fields that cannot be changed after the creation of a budget. */
const fixed: readonly Input[] = [
  {
    name: 'scope',
    to: 'budget.scope',
    kind: choice('BUDGET_SCOPE_', 'scope', ['all', 'agent', 'agent-type', 'run']),
    mask: '',
    help: 'the agents whose cost is added up; required',
  },
  { name: 'agent', to: 'agent', kind: agent, mask: '', help: 'the agent of --scope agent, by name or id' },
  { name: 'agent-type', to: 'budget.agent_type', kind: word('type'), mask: '', help: 'the type of --scope agent-type' },
  {
    name: 'period',
    to: 'budget.period',
    kind: choice('BUDGET_PERIOD_', 'period', ['day', 'month', 'rolling-hours', 'total']),
    mask: '',
    help: 'when the spent amount starts again at 0; required',
  },
  {
    name: 'time-zone',
    to: 'budget.time_zone',
    kind: word('zone'),
    mask: '',
    help: 'time zone of days and months, such as Europe/Berlin (default: UTC)',
  },
  {
    name: 'hours',
    to: 'budget.rolling_hours',
    kind: integer,
    mask: '',
    help: 'hours of --period rolling-hours, 1 to 744',
  },
];

const fields: readonly Input[] = [
  {
    name: 'limit',
    to: 'budget.limit_nano_usd',
    kind: amount,
    help: 'the limit of one period in USD, up to 9 decimals',
  },
  {
    name: 'action',
    to: 'budget.action',
    kind: choice('BUDGET_ACTION_', 'action', ['warn', 'step-down', 'block']),
    help: 'the action when the budget is exhausted',
  },
  {
    name: 'step-down-to',
    to: ['budget.step_down_provider', 'budget.step_down_model'],
    kind: model,
    clears: true,
    help: 'the hop at which --action step-down starts the chain',
  },
  {
    name: 'warn-percent',
    to: 'budget.warn_percent',
    kind: integer,
    clears: true,
    help: 'warn when this part of the limit is spent, in percent, 1 to 100 (default: 80)',
  },
  {
    name: 'enabled',
    to: 'budget.enabled',
    kind: negatableFlag,
    help: 'apply the budget; --no-enabled only counts the cost',
  },
  {
    name: 'description',
    to: 'budget.description',
    kind: text,
    clears: true,
    help: 'the purpose of the budget, at most 1000 characters',
  },
];

/** A budget with its amounts in the current period. */
interface Row {
  readonly budget: Budget;
  readonly state: BudgetState | undefined;
}

const columns: List<Row>['columns'] = [
  ['NAME', ({ budget: { name } }) => name],
  ['SCOPE', (row) => scopeOf(row.budget)],
  ['PERIOD', (row) => periodOf(row.budget)],
  ['LIMIT', ({ budget: { limit_nano_usd } }) => usd(limit_nano_usd ?? 0n)],
  ['SPENT', ({ state }) => (state ? usd(state.spent_nano_usd) : '')],
  ['USED', ({ state }) => (state ? bar(state) : '')],
  ['RESERVED', ({ state }) => (state ? usd(state.reserved_nano_usd) : '')],
  ['ACTION', (row) => actionOf(row.budget)],
];

const budgetList: List<Budget> = {
  field: 'budgets',
  columns: [],
  empty: 'no budgets; agentllm budgets create <name> --scope all --period day --limit 5 --action warn creates one',
  noMatch: 'no budget covers the agent',
  fetchPage: (api, request) => api.budgets.listBudgets(request),
};

const list: RemoteCommand = {
  name: 'list',
  description: 'show the budgets with their spent and reserved amounts',
  more: 'A budget for runs has amounts for each run: agentllm budgets show <name> --run <id> shows them.',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only budgets that cover this agent, by name or id' },
    { ...limitInput },
    minRevision,
  ],
  examples: [
    ['agentllm budgets list', 'all budgets'],
    ['agentllm budgets list --agent trader --json', 'the budgets that cover one agent, as JSON'],
  ],
  next: 'agentllm budgets show <name> shows one budget in detail',
  async run(call) {
    const states: BudgetState[] = [];
    const fetchPage: typeof budgetList.fetchPage = async (api, request) => {
      const page = await api.budgets.listBudgets({ ...request, with_state: true });
      states.push(...page.states);
      return page;
    };
    const { rows: budgets, revision } = await readAll(call, { ...budgetList, fetchPage });
    const byName = new Map(states.map((state) => [state.budget, state]));
    const rows = budgets.map((one) => ({ budget: one, state: byName.get(one.name) }));
    const empty = 'agent' in call.inputs.message ? (budgetList.noMatch as string) : budgetList.empty;
    return call.print({ budgets, states, revision }, () => tableOf(rows, { columns, empty }, 60));
  },
};

const show: RemoteCommand = {
  name: 'show',
  description: 'show all fields of a budget and its amounts',
  inputs: [
    nameArgument('name'),
    { name: 'run', to: 'run_id', kind: word('id'), help: 'the run, for a budget with --scope run' },
    {
      name: 'ago',
      to: 'periods_ago',
      kind: integer,
      help: 'the number of days or months to go back, 0 to 1000 (default: 0)',
    },
    minRevision,
  ],
  examples: [
    ['agentllm budgets create desk --scope all --period day --limit 5 --action warn', 'create one'],
    ['agentllm budgets show desk', 'show it'],
  ],
  async run(call) {
    const { name, min_revision, ...request } = call.request() as Parameters<
      typeof call.api.budgets.getBudgetState
    >[0] & {
      name: string;
    };
    const { budget: found, revision } = await call.api.budgets.getBudget({ name, min_revision });
    const isForRuns = found?.scope === 'BUDGET_SCOPE_RUN' && !request.run_id;
    const { state } = isForRuns ? { state: undefined } : await call.api.budgets.getBudgetState({ name, ...request });
    return call.print({ budget: found, state, revision }, () => record(groupsOf(found as Budget, state)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  description: 'create a budget',
  more: 'Amounts are in USD. Several budgets can cover one agent; all of them apply.',
  inputs: [nameArgument('budget.name'), ...fixed, ...fields, ...writeInputs],
  body,
  examples: [
    ['agentllm budgets create desk --scope all --period day --limit 5 --action warn', 'all agents together, each day'],
    [
      'agentllm budgets create trader --scope agent --agent trader --period month --time-zone Europe/Berlin --limit 20 --action step-down --step-down-to openai/gpt-5.4-mini',
      'one agent, which steps down to a cheaper model',
    ],
    ['agentllm budgets create runs --scope run --period total --limit 0.50 --action block', 'each run separately'],
  ],
  next: 'agentllm resolve <agent> --exhausted <name> shows the effect of an exhausted budget',
  async run(call) {
    const response = await call.api.budgets.createBudget(call.request());
    return call.print(response, () => writeSummary(call, 'created', titleOf(response.budget as Budget), response));
  },
};

const set: RemoteCommand = {
  name: 'set',
  description: 'change a budget; its scope and period cannot be changed',
  inputs: [nameArgument('budget.name'), ...fields, etagInput('budget.etag'), ...writeInputs],
  body,
  patches: true,
  examples: [
    ['agentllm budgets create desk --scope all --period day --limit 5 --action warn', 'create one'],
    ['agentllm budgets set desk --limit 7.50 --action block', 'raise the limit, and block calls when it is reached'],
  ],
  async run(call) {
    requireChange(call, body, fields);
    const response = await call.api.budgets.updateBudget(call.request());
    return call.print(response, () => writeSummary(call, 'updated', titleOf(response.budget as Budget), response));
  },
};

const remove: RemoteCommand = {
  name: 'delete',
  description: 'delete a budget and its amounts',
  inputs: [nameArgument('name'), etagInput('etag'), ...writeInputs],
  examples: [
    ['agentllm budgets create desk --scope all --period day --limit 5 --action warn', 'create one'],
    ['agentllm budgets delete desk', 'delete it'],
  ],
  async run(call) {
    const response = await call.api.budgets.deleteBudget(call.request());
    return call.print(response, () => writeSummary(call, 'deleted', `budget ${call.inputs.message['name']}`, response));
  },
};

const titleOf = ({ name }: Budget) => `budget ${name}`;

function scopeOf({ scope, agent_name, agent_type }: Budget): string {
  if (scope === 'BUDGET_SCOPE_AGENT') return `agent ${agent_name}`;
  if (scope === 'BUDGET_SCOPE_AGENT_TYPE') return `type ${agent_type}`;
  return scope === 'BUDGET_SCOPE_RUN' ? 'each run' : 'all agents';
}

function periodOf({ period, rolling_hours, time_zone }: Budget): string {
  if (period === 'BUDGET_PERIOD_ROLLING_HOURS') return `${rolling_hours} hours`;
  const name = small(period, 'BUDGET_PERIOD_');
  return time_zone === '' ? name : `${name} (${time_zone})`;
}

function actionOf({ action, enabled, step_down_provider, step_down_model }: Budget): string {
  const name = small(action, 'BUDGET_ACTION_');
  const hop = action === 'BUDGET_ACTION_STEP_DOWN' ? ` to ${step_down_provider}/${step_down_model}` : '';
  return enabled === false ? `${name}${hop}, disabled` : `${name}${hop}`;
}

const BAR = 10;

/** The used part of the limit: `███░░░░░░░ 31%`. An amount above the limit fills the bar. */
function bar({ spent_nano_usd: spent, limit_nano_usd: limit, exhausted }: BudgetState): string {
  const percent = (spent * 100n) / limit;
  const full = percent >= 100n ? BAR : Number((percent * BigInt(BAR)) / 100n);
  return `${'█'.repeat(full)}${'░'.repeat(BAR - full)} ${percent}%${exhausted ? ' exhausted' : ''}`;
}

/** Nano-USD as USD, with two decimal places or as many as are needed. */
function usd(nano: bigint): string {
  const digits = nano.toString().padStart(10, '0');
  const fraction = digits.slice(-9).replace(/0+$/, '').padEnd(2, '0');
  return `${digits.slice(0, -9)}.${fraction}`;
}

function groupsOf(row: Budget, state: BudgetState | undefined): Group[] {
  const definition = lines(
    ['scope', scopeOf(row)],
    ['period', periodOf(row)],
    ['limit', `${usd(row.limit_nano_usd ?? 0n)} USD`],
    ['action', actionOf(row)],
    ['warning from', `${row.warn_percent} %`],
    ['description', row.description],
  );
  return [[titleOf(row), definition], ...(state ? [amountsOf(state)] : []), recordOf(row)];
}

const amountsOf = (state: BudgetState): Group => [
  state.run_id === '' ? 'Amounts in USD' : `Amounts of run ${state.run_id} in USD`,
  lines(
    ['from', state.period_start],
    ['until', state.period_end],
    ['used', bar(state)],
    ['spent', usd(state.spent_nano_usd)],
    ['reserved', `${usd(state.reserved_nano_usd)} in ${state.open_reservations} reservations`],
    ['left', usd(state.left_nano_usd)],
    ['without reservation', usd(state.unreserved_nano_usd)],
    ['unpriced attempts', state.unpriced_attempts],
  ),
];

/** `agentllm budgets …`: limits on the cost of models. */
export function budgetsCommand(): Command {
  return remoteGroup(
    'budgets',
    'limit the cost of the models that agents call, and show the spent amounts',
    'Start with: agentllm budgets create <name> --scope all --period day --limit 5 --action warn',
    [list, show, create, set, remove],
  );
}
