import { hasDefaultModel, primaryOf } from '../domain/chain.js';
import { resolve } from '../domain/resolve.js';
import { nearest } from '../domain/text.js';
import { ServiceError } from '../errors.js';
import { maxElements } from '../limits.js';
import { invalidFields } from '../problems.js';
import type { Catalogue } from './catalogue.js';
import { AgentLLMError } from './error.js';
import { freeze } from './freeze.js';
import type { Resolution, ResolveOptions } from './resolution_types.js';
import type { HeldAgent, View } from './view.js';

/** What resolves here in the place of the service, for errors. */
const METHOD = 'agentllm.v1.AgentLLMConfigService/ResolveConfig';

/** Resolves from what is held, and keeps the result for as long as it is true. */
export function resolveFrom(view: View, name: string, { providerDown = [] }: ResolveOptions = {}): Resolution {
  const held = view.agent(name);
  const { catalogue } = view;
  if (!held?.message.agent) throw notFound(view, name);
  if (providerDown.length > 0) return make(catalogue, held, checked(catalogue, providerDown));
  if (held.resolved?.catalogue === catalogue) return held.resolved.resolution;
  const resolution = make(catalogue, held, []);
  held.resolved = { catalogue, resolution };
  return resolution;
}

function make(catalogue: Catalogue, held: HeldAgent, down: readonly string[]): Resolution {
  const { agent, configs } = held.rows(catalogue.ids);
  if (!agent.is_active) throw refusal(ServiceError.of('AGENT_INACTIVE', { agent: agent.name }, about(agent.name)));
  if (!hasDefaultModel(agent) && !primaryOf(configs))
    throw refusal(ServiceError.of('NO_ENABLED_CONFIG', { agent: agent.name }, about(agent.name)));
  const { id, agent_type, role, substitution_policy } = agent;
  return freeze({
    agent: { id, name: agent.name, agent_type, role, substitution_policy },
    ...resolve(catalogue, agent, configs, new Date(), { down }),
    revision: held.revision > catalogue.revision ? held.revision : catalogue.revision,
  });
}

function checked(catalogue: Catalogue, down: readonly string[]): readonly string[] {
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
  if (violations.length > 0) throw refusal(invalidFields(violations));
  return down;
}

function notFound(view: View, name: string): AgentLLMError {
  const existing = [...view.agentNames].filter((one) => view.agent(one)?.message.agent);
  const suggestion = nearest(name, existing);
  const agent = `name ${JSON.stringify(name)}`;
  return refusal(ServiceError.of('AGENT_NOT_FOUND', { agent, ...(suggestion && { suggestion }) }, about(name)));
}

const about = (name: string) => ({ resources: [{ type: 'agent', name }] }) as const;
const refusal = (error: ServiceError) => AgentLLMError.like(error, METHOD);

/** Nothing is held to resolve from. */
export const nothingHeld = (cause: AgentLLMError | undefined): AgentLLMError =>
  AgentLLMError.here(`Nothing is held yet: ${cause?.message ?? 'the first connection is being made'}; await ready()`, {
    code: 'UNAVAILABLE',
    method: METHOD,
    cause,
  });

/** An agent was asked for that is not among those of `connect`. */
export const notWatched = (name: string): AgentLLMError =>
  AgentLLMError.here(`This client does not hold agent ${JSON.stringify(name)}; name it in the agents of connect()`, {
    code: 'INVALID_ARGUMENT',
    method: METHOD,
  });
