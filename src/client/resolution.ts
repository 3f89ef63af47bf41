import type { CoveringBudget } from '../domain/budget_effect.js';
import { hasNoModel } from '../domain/chain.js';
import { subjectProblem } from '../domain/experiments/subject.js';
import { PARAMETERS, type ParameterValues } from '../domain/parameters.js';
import { type ResolveOptions as DomainOptions, resolve } from '../domain/resolve.js';
import { nearest } from '../domain/text.js';
import { ServiceError } from '../errors.js';
import { maxElements } from '../max_elements.js';
import { invalidFields } from '../problems.js';
import { budgetsOf } from './budgets/budget_leases.js';
import type { BudgetStates } from './budgets/budget_states.js';
import type { Catalogue } from './catalogue.js';
import { AgentLLMError } from './error.js';
import { freeze } from './freeze.js';
import type { Resolution, ResolveOptions } from './resolution_types.js';
import type { HeldAgent, View } from './view.js';

/** The method that errors name: the same resolution in the service. */
const METHOD = 'agentllm.v1.AgentLLMConfigService/ResolveConfig';

/**
 * Resolves an agent from the held state. The result is cached until the agent or the catalogue changes, for each variant
 * of an experiment.
 */
export function resolveFrom(view: View, name: string, states: BudgetStates, options: ResolveOptions = {}): Resolution {
  const { providerDown = [], budgetExhausted = [], overrides = {}, subject } = options;
  const held = view.agent(name);
  const { catalogue } = view;
  if (!held?.message.agent) throw notFound(view, name);
  if (subject !== undefined) checkSubject(subject);
  const chosen = held.experiment?.choose(subject);
  const replaced = checkOverrides(overrides);
  const simulated = checkBudgets(view, name, budgetExhausted);
  const budgets = () => coveringIn(view, name, states, simulated);
  if (providerDown.length > 0 || simulated.size > 0 || Object.keys(replaced).length > 0)
    return compute(catalogue, held, {
      down: checkProviders(catalogue, providerDown),
      overrides: replaced,
      budgets: budgets(),
      chosen,
    });
  const { byPosition } = held.resolved(catalogue, states.version);
  const position = chosen?.position ?? 0;
  byPosition[position] ??= compute(catalogue, held, { budgets: budgets(), chosen });
  return byPosition[position];
}

/** A program without static types may pass a number, for example the id of a user. */
function checkSubject(subject: string): void {
  const description = typeof subject === 'string' ? subjectProblem(subject) : `must be a text, not ${typeof subject}`;
  if (description) throw toClientError(invalidFields([{ field: 'subject', description }]));
}

function compute(catalogue: Catalogue, held: HeldAgent, options: DomainOptions): Resolution {
  const { agent, configs } = held.rows(catalogue.ids);
  if (!agent.is_active)
    throw toClientError(ServiceError.of('AGENT_INACTIVE', { agent: agent.name }, resource(agent.name)));
  if (hasNoModel(agent, configs, options.chosen))
    throw toClientError(ServiceError.of('NO_ENABLED_CONFIG', { agent: agent.name }, resource(agent.name)));
  const { id, agent_type, role, substitution_policy } = agent;
  return freeze({
    agent: { id, name: agent.name, agent_type, role, substitution_policy },
    ...resolve(catalogue, agent, configs, new Date(), options),
    revision: held.revision > catalogue.revision ? held.revision : catalogue.revision,
  });
}

/**
 * The enabled budgets that cover an agent, with their states. Budgets for runs are included only if they are simulated.
 */
function coveringIn(view: View, name: string, states: BudgetStates, simulated: ReadonlySet<string>): CoveringBudget[] {
  return budgetsOf(view, name, simulated.size > 0).flatMap((budget) => {
    if (simulated.has(budget.name)) return [{ budget, exhausted: true, warning: true }];
    return budget.enabled && budget.scope !== 'BUDGET_SCOPE_RUN' ? [states.covering(budget)] : [];
  });
}

/**
 * Checks the names of budgets that are treated as exhausted. This client knows only the budgets that cover its agents.
 */
function checkBudgets(view: View, agent: string, names: readonly string[]): ReadonlySet<string> {
  if (names.length === 0) return NO_BUDGETS;
  const known = new Set([...view.catalogue.budgets, ...budgetsOf(view, agent, true)].map(({ name }) => name));
  const violations = names.flatMap((name, at) =>
    known.has(name)
      ? []
      : [{ field: `budgetExhausted[${at}]`, description: `no budget has the name ${JSON.stringify(name)}` }],
  );
  const most = maxElements['agentllm.v1.ResolveConfigRequest.budget_exhausted'];
  if (names.length > most)
    violations.push({
      field: 'budgetExhausted',
      description: `must have at most ${most} entries, not ${names.length}`,
    });
  if (violations.length > 0) throw toClientError(invalidFields(violations));
  return new Set(names);
}
const NO_BUDGETS: ReadonlySet<string> = new Set();

function checkProviders(catalogue: Catalogue, down: readonly string[]): readonly string[] {
  const violations = down.flatMap((name, at) =>
    catalogue.provider(String(name))
      ? []
      : [{ field: `providerDown[${at}]`, description: `no provider has the name ${JSON.stringify(name)}` }],
  );
  if (down.length > maxElements['agentllm.v1.ResolveConfigRequest.provider_down'])
    violations.push({
      field: 'providerDown',
      description: `must have at most ${maxElements['agentllm.v1.ResolveConfigRequest.provider_down']} entries, not ${down.length}`,
    });
  if (violations.length > 0) throw toClientError(invalidFields(violations));
  return down;
}

/** The overrides that have a value. */
function checkOverrides(overrides: ParameterValues): ParameterValues {
  const set = Object.entries(overrides).filter(([, value]) => value !== undefined);
  const violations = set.flatMap(([name, value]) => {
    const known = (PARAMETERS as readonly string[]).includes(name);
    if (known && isParameterValue(value)) return [];
    const description = known ? 'must be a finite number, a text or a list of texts' : 'is not a parameter';
    return [{ field: `overrides.${name}`, description }];
  });
  if (violations.length > 0) throw toClientError(invalidFields(violations));
  return Object.fromEntries(set);
}

const isParameterValue = (value: unknown): boolean =>
  Number.isFinite(value) ||
  typeof value === 'string' ||
  (Array.isArray(value) && value.every((element) => typeof element === 'string'));

function notFound(view: View, name: string): AgentLLMError {
  const existing = [...view.agentNames].filter((one) => view.agent(one)?.message.agent);
  const suggestion = nearest(name, existing);
  const agent = `name ${JSON.stringify(name)}`;
  return toClientError(
    ServiceError.of('AGENT_NOT_FOUND', { agent, ...(suggestion && { suggestion }) }, resource(name)),
  );
}

const resource = (name: string) => ({ resources: [{ type: 'agent', name }] }) as const;
const toClientError = (error: ServiceError) => AgentLLMError.like(error, METHOD);

/** The error while the client holds no state. */
export const nothingHeld = (cause: AgentLLMError | undefined): AgentLLMError =>
  AgentLLMError.here(`Nothing is held yet: ${cause?.message ?? 'the client is connecting'}; await ready()`, {
    code: 'UNAVAILABLE',
    method: METHOD,
    cause,
  });

/** The error for an agent that is not in the option `agents` of `connect`. */
export const notWatched = (name: string): AgentLLMError =>
  AgentLLMError.here(`This client does not hold agent ${JSON.stringify(name)}; name it in the agents of connect()`, {
    code: 'INVALID_ARGUMENT',
    method: METHOD,
  });
