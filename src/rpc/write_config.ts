import type { AgentRef } from '../../gen/ts/agentllm/v1/agent.js';
import { AgentLLMConfig as ConfigMessage } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import { primaryOf } from '../domain/chain.js';
import { checkConfig, configFields, configOutputOnly, newConfig, patchConfig } from '../domain/config.js';
import type { Draft } from '../domain/draft.js';
import { type Patch, readPatch } from '../domain/patch.js';
import type { Agent, Config } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import type { Violation } from '../errors.js';
import { etagOf } from './messages.js';
import { agentOf, checkEtag, configOf, idProblem, type Problems } from './requests.js';

/** The fields that requests which write a config have in common. */
export interface ConfigRequest {
  readonly agent?: AgentRef | undefined;
  readonly config?: ConfigMessage | undefined;
  readonly update_mask?: readonly string[] | undefined;
  readonly api_key?: string | undefined;
  readonly clear_api_key?: boolean;
  readonly allow_unknown_model: boolean;
}

/** A config as a write would leave it. */
export interface Proposal {
  readonly before: Config | undefined;
  readonly row: Config;
  readonly violations: readonly Violation[];
}

/** What a request says of a config; the same for every agent that it is for. */
export function patchOf(request: ConfigRequest): Patch {
  return readPatch({
    body: request.config ?? ConfigMessage.create(),
    mask: request.update_mask ?? [],
    specs: configFields,
    outputOnly: configOutputOnly,
    at: 'config',
  });
}

export function proposeCreate(state: State, agent: Agent | undefined, patch: Patch, request: ConfigRequest): Proposal {
  const behind = agent ? (state.configsOf(agent.id).at(-1)?.priority ?? 0) : 0;
  return propose(state, newConfig(agent?.id ?? 0, behind), patch, request);
}

export function proposeUpdate(state: State, before: Config, patch: Patch, request: ConfigRequest): Proposal {
  return propose(state, before, patch, request);
}

/** The primary with the patch applied; else the first disabled config, enabled; else a new one. */
export function proposeUpsert(state: State, agent: Agent, patch: Patch, request: ConfigRequest): Proposal {
  const configs = state.configsOf(agent.id);
  const before = primaryOf(configs) ?? configs[0];
  if (!before) return proposeCreate(state, agent, patch, request);
  return propose(state, { ...before, enabled: true }, patch, request, before);
}

function propose(state: State, base: Config, patch: Patch, request: ConfigRequest, before = base): Proposal {
  const row = patchConfig(state, base, patch);
  const options = { at: 'config', allowUnknownModel: request.allow_unknown_model };
  return { before: before.id === 0 ? undefined : before, row, violations: checkConfig(state, row, patch, options) };
}

/** Enters a proposal in the draft. */
export const draftProposal = (draft: Draft, { before, row }: Proposal): Config =>
  before ? draft.update('config', before, row) : draft.create('config', row);

export function planCreate(state: State, draft: Draft, problems: Problems, request: ConfigRequest): Config {
  const patch = patchOf(request);
  const agent = problems.any ? undefined : agentIfAny(state, request);
  const proposal = proposeCreate(state, agent, patch, request);
  checkKey(problems, request);
  problems.addAll([...patch.violations, ...proposal.violations]);
  problems.throwIfAny();
  agentOf(state, request.agent);
  return draftProposal(draft, proposal);
}

const agentIfAny = (state: State, { agent: ref }: ConfigRequest) =>
  ref?.id !== undefined ? state.agents.get(ref.id) : state.agentNamed(ref?.name ?? '');

export function planUpdate(state: State, draft: Draft, problems: Problems, request: ConfigRequest): Config {
  const id = request.config?.id ?? 0;
  const patch = patchOf(request);
  problems.add('config.id', idProblem(id));
  checkKey(problems, request);
  problems.addAll(patch.violations);
  if (!state.configs.has(id)) problems.throwIfAny();
  const proposal = proposeUpdate(state, configOf(state, id), patch, request);
  problems.addAll(proposal.violations);
  problems.throwIfAny();
  checkEtag(request.config?.etag ?? '', etagOfAny(state, proposal.before), `Config ${id}`);
  return draftProposal(draft, proposal);
}

export interface Upserted {
  readonly config: Config;
  readonly created: boolean;
}

export function planUpsert(state: State, draft: Draft, problems: Problems, request: ConfigRequest): Upserted {
  const patch = patchOf(request);
  checkUpsert(problems, request);
  const agent = problems.any ? undefined : agentIfAny(state, request);
  const proposal = agent
    ? proposeUpsert(state, agent, patch, request)
    : { ...proposeCreate(state, undefined, patch, request), before: undefined };
  problems.addAll([...patch.violations, ...(agent ? proposal.violations : [])]);
  problems.throwIfAny();
  const found = agentOf(state, request.agent);
  const etag = request.config?.etag ?? '';
  checkEtag(etag, etagOfAny(state, proposal.before), `The primary config of agent ${JSON.stringify(found.name)}`);
  return { config: draftProposal(draft, proposal), created: !proposal.before };
}

/** Adds what is wrong with an upsert whichever agent it is for. */
export function checkUpsert(problems: Problems, request: ConfigRequest): void {
  checkKey(problems, request);
  if (request.config?.enabled === false)
    problems.add('config.enabled', 'must not be false here: a primary is enabled; use UpdateConfig to disable one');
}

const etagOfAny = (state: State, row: Config | undefined) => row && etagOf(state, row);

function checkKey(problems: Problems, { api_key, clear_api_key }: ConfigRequest): void {
  if (api_key === '') problems.add('api_key', 'must not be empty; use clear_api_key to remove a key');
  if (api_key !== undefined && clear_api_key) problems.add('clear_api_key', 'must not be set together with api_key');
}
