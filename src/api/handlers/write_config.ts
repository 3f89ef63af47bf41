import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import { AgentLLMConfig as ConfigMessage } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import { primaryOf } from '../../domain/chain.js';
import { checkConfig, configFields, configOutputOnly, newConfig, patchConfig } from '../../domain/config.js';
import { keyProblem } from '../../domain/credential.js';
import type { Draft } from '../../domain/draft.js';
import { withoutConfig } from '../../domain/findings.js';
import { lintConfig } from '../../domain/lint.js';
import { type Patch, readPatch } from '../../domain/patch.js';
import type { Agent, Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError, type Violation } from '../../errors.js';
import type { Problems } from '../../problems.js';
import { configMessage, etagOf } from '../messages/entities.js';
import { agentOf, checkEtag, configOf, findAgent, idProblem } from './requests.js';

/** The response of a write of a config. */
export const configResponse = (config: Config, revision: bigint, state: State) => ({
  config: configMessage(state, config),
  revision,
  findings: [...findingsOf(state, config), ...missingConfigFindings(state, config.agent_id, config)],
});

/**
 * A warning if a write leaves an agent without an enabled config. The state may be that before or after the write.
 * @param written the config after the write, or the id of a deleted config.
 */
export function missingConfigFindings(state: State, agentId: number, written: Config | number): Finding[] {
  const agent = state.agents.get(agentId);
  const id = typeof written === 'number' ? written : written.id;
  const others = state.configsOf(agentId).filter((config) => config.id !== id);
  return agent ? [...withoutConfig(agent, typeof written === 'number' ? others : [...others, written])] : [];
}

/** The findings of a config after a write. */
export function findingsOf(state: State, config: Config) {
  const agent = state.agents.get(config.agent_id);
  return agent ? [...lintConfig(state, agent, config, new Date())] : [];
}

/** The common fields of requests that write a config. */
export interface ConfigRequest {
  readonly agent?: AgentRef | undefined;
  readonly config?: ConfigMessage | undefined;
  readonly update_mask?: readonly string[] | undefined;
  readonly api_key?: string | undefined;
  readonly clear_api_key?: boolean;
  readonly allow_unknown_model: boolean;
}

/** A cache of problem texts for requests with several agents. */
export type ProblemTexts = Map<string, string>;

/** A config before and after a planned write. */
export interface Proposal {
  readonly before: Config | undefined;
  readonly row: Config;
  readonly violations: readonly Violation[];
}

/** The changes of a request to a stored config, or to a new one. */
export function patchOf(request: ConfigRequest, state?: State, stored?: Config): Patch {
  return readPatch({
    stored: state && stored && configMessage(state, stored),
    body: request.config ?? ConfigMessage.create(),
    mask: request.update_mask ?? [],
    specs: configFields,
    outputOnly: configOutputOnly,
    at: 'config',
  });
}

export function proposeCreate(
  state: State,
  agent: Agent | undefined,
  patch: Patch,
  request: ConfigRequest & { readonly texts?: ProblemTexts },
): Proposal {
  const lastPriority = agent ? (state.configsOf(agent.id).at(-1)?.priority ?? 0) : 0;
  return propose(state, newConfig(agent?.id ?? 0, lastPriority), patch, request);
}

export function proposeUpdate(state: State, before: Config, patch: Patch, request: ConfigRequest): Proposal {
  return propose(state, before, patch, request);
}

/** The config that an upsert changes: the primary, else the first disabled one; undefined: it creates a config. */
export function upsertTarget(state: State, agent: Agent): Config | undefined {
  const configs = state.configsOf(agent.id);
  return primaryOf(configs) ?? configs[0];
}

/** The target with the patch applied, and enabled; a new config if there is no target. */
export function proposeUpsert(
  state: State,
  agent: Agent,
  patch: Patch,
  request: ConfigRequest & { readonly texts?: ProblemTexts },
): Proposal {
  const before = upsertTarget(state, agent);
  if (!before) return proposeCreate(state, agent, patch, request);
  return propose(state, { ...before, enabled: true }, patch, request, before);
}

function propose(
  state: State,
  base: Config,
  patch: Patch,
  request: ConfigRequest & { readonly texts?: ProblemTexts },
  before = base,
): Proposal {
  const row = patchConfig(state, base, patch);
  const { allow_unknown_model: allowUnknownModel, texts } = request;
  const options = { at: 'config', allowUnknownModel, ...(texts && { texts }) };
  const violations = [...checkConfig(state, row, patch, options), ...checkCredential(before, row, request)];
  return { before: before.id === 0 ? undefined : before, row, violations };
}

/** The change of the API key of a config: a text sets it, null clears it, undefined keeps it. */
const keyIn = ({ api_key, clear_api_key }: ConfigRequest): string | null | undefined =>
  api_key ?? (clear_api_key ? null : undefined);

/** A config has either an API key or a credential, so that it is clear which one is used. */
function checkCredential(before: Config, row: Config, request: ConfigRequest): Violation[] {
  const key = keyIn(request);
  const hasKey = key === undefined ? before.key_id !== null : key !== null;
  if (!hasKey || row.credential_id === null) return [];
  const description = 'must not be set while the config has an API key; clear one of the two';
  return [{ field: 'config.credential_name', description }];
}

/** The error if a key would be used for another provider than the one that it was set for. */
export function keyRefusal(state: State, { before, row }: Proposal, request: ConfigRequest): ServiceError | undefined {
  const refusal = (key_provider: string, remedy: string) =>
    ServiceError.of(
      'KEY_PROVIDER_MISMATCH',
      { key_provider, provider: row.provider, remedy },
      { resources: [{ type: 'config', name: String(row.id) }] },
    );
  const credential = row.credential_id === null ? undefined : state.credentials.get(row.credential_id);
  if (credential && credential.provider !== row.provider)
    return refusal(credential.provider, `name a credential for ${row.provider} in the same request, or none`);
  const keepsKey = keyIn(request) === undefined && before?.key_id != null;
  if (keepsKey && before.provider !== row.provider)
    return refusal(before.provider, 'set api_key or clear_api_key in the same request');
  return undefined;
}

/** Adds a proposal to the draft, with the change of its key. */
export function draftProposal(state: State, draft: Draft, proposal: Proposal, request: ConfigRequest): Config {
  const refusal = keyRefusal(state, proposal, request);
  if (refusal) throw refusal;
  const key = keyIn(request);
  const { before } = proposal;
  const row = { ...proposal.row, ...(key !== undefined && keyColumns(state, draft, key)) };
  const stored = before ? draft.update('config', before, row) : draftNew(draft, row);
  if (key !== undefined) draft.keys.push({ entity: 'config', row: stored, key });
  return stored;
}

/** Creates a config, or restores a deleted config with its id. */
const draftNew = (draft: Draft, row: Config) =>
  row.id === 0 ? draft.create('config', row) : draft.restore('config', row);

export function planCreate(state: State, draft: Draft, problems: Problems, request: ConfigRequest): Config {
  const patch = patchOf(request);
  const agent = problems.any ? undefined : findAgent(state, request.agent ?? {});
  const proposal = proposeCreate(state, agent, patch, request);
  checkKey(problems, request);
  problems.addAll([...patch.violations, ...proposal.violations]);
  problems.throwIfAny();
  agentOf(state, request.agent);
  return draftProposal(state, draft, proposal, request);
}

export function planUpdate(state: State, draft: Draft, problems: Problems, request: ConfigRequest): Config {
  const id = request.config?.id ?? 0;
  const patch = patchOf(request, state, state.configs.get(id));
  problems.add('config.id', idProblem(id));
  checkKey(problems, request);
  problems.addAll(patch.violations);
  if (!state.configs.has(id)) problems.throwIfAny();
  const proposal = proposeUpdate(state, configOf(state, id), patch, request);
  problems.addAll(proposal.violations);
  problems.throwIfAny();
  checkEtag(request.config?.etag ?? '', etagOfAny(state, proposal.before), `Config ${id}`);
  return draftProposal(state, draft, proposal, request);
}

export interface Upserted {
  readonly config: Config;
  readonly created: boolean;
}

export function planUpsert(state: State, draft: Draft, problems: Problems, request: ConfigRequest): Upserted {
  checkUpsert(problems, request);
  const agent = problems.any ? undefined : findAgent(state, request.agent ?? {});
  const patch = patchOf(request, state, agent && upsertTarget(state, agent));
  const proposal = agent
    ? proposeUpsert(state, agent, patch, request)
    : { ...proposeCreate(state, undefined, patch, request), before: undefined };
  problems.addAll([...patch.violations, ...(agent ? proposal.violations : [])]);
  problems.throwIfAny();
  const found = agentOf(state, request.agent);
  const etag = request.config?.etag ?? '';
  checkEtag(etag, etagOfAny(state, proposal.before), `The primary config of agent ${JSON.stringify(found.name)}`);
  return { config: draftProposal(state, draft, proposal, request), created: !proposal.before };
}

/** Adds the problems of an upsert that do not depend on the agent. */
export function checkUpsert(problems: Problems, request: ConfigRequest): void {
  checkKey(problems, request);
  if (request.config?.enabled === false)
    problems.add(
      'config.enabled',
      'must not be false, because a primary config is enabled; use UpdateConfig to disable a config',
    );
}

/** The columns of a row for its stored key. */
export const keyColumns = (state: State, draft: Draft, key: string | null) =>
  key === null
    ? { key_id: null, key_revision: null }
    : { key_id: state.encryption.writable.primaryId, key_revision: draft.revision };

const etagOfAny = (state: State, row: Config | undefined) => row && etagOf(state, row);

function checkKey(problems: Problems, { api_key, clear_api_key }: ConfigRequest): void {
  if (api_key !== undefined) problems.add('api_key', keyProblem(api_key));
  if (api_key !== undefined && clear_api_key) problems.add('clear_api_key', 'must not be set together with api_key');
}
