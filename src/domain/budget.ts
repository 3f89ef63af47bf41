import { z } from 'zod';
import type { Violation } from '../errors.js';
import { limits } from '../limits.js';
import { modelProblem, providerProblem } from './config.js';
import { flag, integer, name, oneOf, ownName, text } from './fields.js';
import { applyPatch, type FieldSpecs, type Patch, touches } from './patch.js';
import type { Budget } from './rows.js';
import type { State } from './state.js';
import { timeZoneProblem } from './time_zone.js';

const empty = (value: unknown) => value === '';
const unspecified = (value: unknown) => typeof value === 'string' && value.endsWith('_UNSPECIFIED');

/** An amount in nano-USD, as an exact integer. */
const amount = ({ min, max }: { readonly min: bigint; readonly max: bigint }) =>
  z.bigint().superRefine((value, context) => {
    if (value < min || value > max)
      context.addIssue({ code: 'custom', message: `must be a whole number between ${min} and ${max}, not ${value}` });
  });

const timeZone = text(limits.timeZone).superRefine((zone, context) => {
  const message = timeZoneProblem(zone);
  if (message) context.addIssue({ code: 'custom', message });
});

/** The fields of a budget that a request can change, by their paths below `budget`. */
export const budgetFields: FieldSpecs = {
  description: { schema: text(limits.description), cleared: null },
  limit_nano_usd: { schema: amount(limits.budgetLimit) },
  action: {
    schema: oneOf('BUDGET_ACTION_WARN', 'BUDGET_ACTION_STEP_DOWN', 'BUDGET_ACTION_BLOCK'),
    absent: unspecified,
  },
  step_down_provider: { schema: name(limits.provider), cleared: null },
  step_down_model: { schema: name(limits.modelName), cleared: null },
  warn_percent: { schema: integer(limits.warnPercent), cleared: limits.defaultWarnPercent },
  enabled: { schema: flag, cleared: true },
};

/** The fields that cannot be changed after the creation of a budget. */
const fixedFields: FieldSpecs = {
  name: { schema: ownName(limits.budgetName), absent: empty },
  scope: {
    schema: oneOf('BUDGET_SCOPE_ALL', 'BUDGET_SCOPE_AGENT', 'BUDGET_SCOPE_AGENT_TYPE', 'BUDGET_SCOPE_RUN'),
    absent: unspecified,
  },
  agent_type: { schema: name(limits.agentType), absent: empty },
  period: {
    schema: oneOf('BUDGET_PERIOD_DAY', 'BUDGET_PERIOD_MONTH', 'BUDGET_PERIOD_ROLLING_HOURS', 'BUDGET_PERIOD_TOTAL'),
    absent: unspecified,
  },
  time_zone: { schema: timeZone, absent: empty },
  rolling_hours: { schema: integer(limits.rollingHours) },
};
export const newBudgetFields: FieldSpecs = { ...fixedFields, ...budgetFields };
export const immutableBudgetFields = Object.keys(fixedFields).filter((field) => field !== 'name');

export const budgetOutputOnly = [
  ...Object.keys(fixedFields),
  'id',
  'agent_id',
  'agent_name',
  'created_at',
  'updated_at',
  'revision',
  'etag',
];

export const newBudget = (): Budget => ({
  id: 0,
  name: '',
  description: null,
  scope: 'BUDGET_SCOPE_UNSPECIFIED',
  agent_id: null,
  agent_type: '',
  period: 'BUDGET_PERIOD_UNSPECIFIED',
  time_zone: '',
  rolling_hours: null,
  limit_nano_usd: 0n,
  action: 'BUDGET_ACTION_UNSPECIFIED',
  step_down_provider: null,
  step_down_model: null,
  warn_percent: limits.defaultWarnPercent,
  enabled: true,
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

/** Applies a patch; the provider of the hop becomes its canonical name. */
export function patchBudget(state: State, before: Budget, patch: Patch): Budget {
  const row = applyPatch(before, patch, newBudgetFields);
  const isStepDown = row.action === 'BUDGET_ACTION_STEP_DOWN';
  // When the action changes from STEP_DOWN, the hop is removed, because other actions have no hop. If the request
  // contains a hop, it is reported as a problem instead.
  const dropsHop = !isStepDown && !('step_down_provider' in patch.set) && !('step_down_model' in patch.set);
  const provider = row.step_down_provider;
  return {
    ...row,
    step_down_provider: dropsHop || provider === null ? null : (state.provider(provider)?.name ?? provider),
    step_down_model: dropsHop ? null : row.step_down_model,
  };
}

/** All violations of a budget's values that concern several fields or the catalogue. */
export function checkBudget(state: State, row: Budget, patch: Patch): Violation[] {
  const problems: Violation[] = [];
  const report = (field: string, description: string | undefined) => {
    if (description && !patch.invalid.has(field)) problems.push({ field: `budget.${field}`, description });
  };
  const required = (field: keyof Budget, isMissing: boolean) => report(field, isMissing ? 'is required' : undefined);
  required('name', row.name === '');
  required('scope', unspecified(row.scope));
  required('period', unspecified(row.period));
  required('limit_nano_usd', row.limit_nano_usd === 0n);
  required('action', unspecified(row.action));
  const problemOf = (isPresent: boolean, isRequired: boolean, owner: string) =>
    isPresent === isRequired ? undefined : isRequired ? `is required for ${owner}` : `must be absent without ${owner}`;
  if (!unspecified(row.scope))
    report(
      'agent_type',
      problemOf(row.agent_type !== '', row.scope === 'BUDGET_SCOPE_AGENT_TYPE', 'BUDGET_SCOPE_AGENT_TYPE'),
    );
  if (!unspecified(row.period)) for (const [field, problem] of periodProblems(row, problemOf)) report(field, problem);
  if (!unspecified(row.action))
    for (const [field, problem] of hopProblems(state, row, patch, problemOf)) report(field, problem);
  return problems;
}

type PresenceProblem = (isPresent: boolean, isRequired: boolean, owner: string) => string | undefined;

function periodProblems({ period, time_zone, rolling_hours }: Budget, problemOf: PresenceProblem) {
  const isRolling = period === 'BUDGET_PERIOD_ROLLING_HOURS';
  const isCalendar = period === 'BUDGET_PERIOD_DAY' || period === 'BUDGET_PERIOD_MONTH';
  const owner = 'BUDGET_PERIOD_DAY or BUDGET_PERIOD_MONTH';
  return [
    ['time_zone', time_zone === '' || isCalendar ? undefined : `must be absent without ${owner}`],
    ['rolling_hours', problemOf(rolling_hours !== null, isRolling, 'BUDGET_PERIOD_ROLLING_HOURS')],
  ] as const;
}

function hopProblems(state: State, row: Budget, patch: Patch, problemOf: PresenceProblem) {
  const isStepDown = row.action === 'BUDGET_ACTION_STEP_DOWN';
  const { step_down_provider: provider, step_down_model: model } = row;
  const owner = 'BUDGET_ACTION_STEP_DOWN';
  // An unchanged hop is not checked again, because the catalogue may have changed since.
  const isNew = isStepDown && touches(patch, 'step_down_provider', 'step_down_model');
  const unknown = isNew && provider !== null ? providerProblem(state, provider) : undefined;
  const isChecked = isNew && provider !== null && model !== null && unknown === undefined;
  const modelText = isChecked ? modelProblem(state, provider, model, { allowUnknownModel: false }) : undefined;
  return [
    ['step_down_provider', problemOf(provider !== null, isStepDown, owner) ?? unknown],
    ['step_down_model', problemOf(model !== null, isStepDown, owner) ?? modelText],
  ] as const;
}
