import type {
  ValidateConfigRequest,
  ValidateConfigResponse,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { type Lint, lintChain, refusedField } from '../../domain/lint.js';
import type { Agent, Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { Violation } from '../../errors.js';
import { Problems } from '../../problems.js';
import { etagOf } from '../messages/entities.js';
import { agentOf, checkRef, configOf, idProblem, staleEtag } from './requests.js';
import { keyRefusal, patchOf, proposeCreate, proposeUpdate } from './write_config.js';

/** Lints a stored config, or a proposed config instead of it, with the complete chain of its agent. */
export function validateConfig(state: State, request: ValidateConfigRequest): ValidateConfigResponse {
  checkTarget(request);
  const lint = request.config ? lintProposal(state, request) : lintStored(state, request);
  return {
    findings: [...lint.findings],
    hops: [...lint.hops],
    acceptable: lint.acceptable,
    revision: BigInt(state.revision),
  };
}

type LintResult = Lint & { readonly acceptable: boolean };

function checkTarget(request: ValidateConfigRequest): void {
  const { id, agent, config } = request;
  const problems = new Problems();
  if (id !== undefined && (agent || config))
    problems.add('id', 'must be set alone, because a stored config determines its agent');
  if (id === undefined && !agent && !config) problems.add('config', 'is required: set config, id or agent');
  if (id !== undefined) problems.add('id', idProblem(id));
  if (agent) checkRef(problems, agent);
  else if (config && config.id === 0) problems.add('agent', 'is required for a proposal without config.id');
  if (config && config.id !== 0) problems.add('config.id', idProblem(config.id));
  problems.throwIfAny();
}

function lintStored(state: State, { id, agent: ref }: ValidateConfigRequest): LintResult {
  const config = id === undefined ? undefined : configOf(state, id);
  const agent = config ? ownerOf(state, config) : agentOf(state, ref);
  const configs = state.configsOf(agent.id);
  // A disabled config is linted as if it were enabled.
  const chain = configs.map((other) => (other === config ? { ...other, enabled: true } : other));
  return { ...lintChain(state, agent, chain, new Date()), acceptable: true };
}

function lintProposal(state: State, request: ValidateConfigRequest): LintResult {
  const stored = request.config?.id ? configOf(state, request.config.id) : undefined;
  const agent = stored ? ownerOf(state, stored) : agentOf(state, request.agent);
  const patch = patchOf(request, state, stored);
  const proposal = stored ? proposeUpdate(state, stored, patch, request) : proposeCreate(state, agent, patch, request);
  const { row, violations } = proposal;
  const refused: Violation[] = [...patch.violations, ...violations];
  const key = keyRefusal(state, proposal, request);
  if (key) refused.push({ field: 'config.provider', description: key.message });
  const etag = request.config?.etag ?? '';
  if (etag !== '' && etag !== (stored && etagOf(state, stored)))
    refused.push({ field: 'config.etag', description: staleEtag(`Config ${stored?.id ?? 0}`).message });
  if (refused.length > 0) return { findings: refused.map(refusedField), hops: [], acceptable: false };
  return { ...lintChain(state, agent, withProposal(state, agent, stored, row), new Date()), acceptable: true };
}

const ownerOf = (state: State, config: Config) => agentOf(state, { id: config.agent_id });

/** The agent's configs with the proposal in its position; a new config comes after those of equal priority. */
function withProposal(state: State, agent: Agent, stored: Config | undefined, row: Config): Config[] {
  const others = state.configsOf(agent.id).filter((config) => config !== stored);
  const before = (config: Config) =>
    config.priority < row.priority || (config.priority === row.priority && (row.id === 0 || config.id < row.id));
  return [...others.filter(before), row, ...others.filter((config) => !before(config))];
}
