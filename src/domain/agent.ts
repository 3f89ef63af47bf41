import type { Violation } from '../errors.js';
import { limits } from '../limits.js';
import { modelProblem, providerProblem } from './config.js';
import { count, flag, json, name, nameOrEmpty, number, oneOf, ownName, text } from './fields.js';
import { applyPatch, type FieldSpecs, type Patch, touches } from './patch.js';
import type { Agent } from './rows.js';
import type { State } from './state.js';

const empty = (value: unknown) => value === '';

/** The fields of an agent that a request can set, by their paths below `agent`. */
export const agentFields: FieldSpecs = {
  name: { schema: ownName(limits.agentName), absent: empty },
  agent_type: { schema: name(limits.agentType), absent: empty },
  role: { schema: name(limits.agentType), cleared: 'analyst' },
  llm_provider: { schema: nameOrEmpty(limits.provider), cleared: 'openai' },
  llm_model: { schema: nameOrEmpty(limits.modelName), cleared: 'gpt-4o-mini' },
  llm_type: { schema: oneOf('quick', 'deep'), cleared: 'quick' },
  temperature: { schema: number(limits.temperature), cleared: 0.7 },
  max_tokens: { schema: count, cleared: null },
  prompt_template: { schema: text(limits.promptTemplate), cleared: null },
  capabilities_json: { schema: json('array'), cleared: null },
  required_tools_json: { schema: json('array'), cleared: null },
  requires_memory: { schema: flag, cleared: false },
  memory_name: { schema: text(limits.memoryName), cleared: null },
  slot_name: { schema: text(limits.slotName), cleared: null },
  config_json: { schema: json('object'), cleared: null },
  is_active: { schema: flag, cleared: true },
  version: { schema: name(limits.version), cleared: '1.0.0' },
  description: { schema: text(limits.description), cleared: null },
  metadata_json: { schema: json('object'), cleared: null },
  substitution_policy: {
    schema: oneOf(
      'SUBSTITUTION_POLICY_NEVER',
      'SUBSTITUTION_POLICY_SAME_MODEL',
      'SUBSTITUTION_POLICY_SAME_PROVIDER',
      'SUBSTITUTION_POLICY_ANY',
    ),
    cleared: 'SUBSTITUTION_POLICY_ANY',
    absent: (value) => value === 'SUBSTITUTION_POLICY_UNSPECIFIED',
  },
};

/** `is_reserved` can be set only when an agent is created. */
export const newAgentFields: FieldSpecs = { ...agentFields, is_reserved: { schema: flag } };

export const agentOutputOnly = [
  'id',
  'is_reserved',
  'created_at',
  'updated_at',
  'revision',
  'etag',
  'chain_etag',
] as const;

/** A new agent with the defaults of its table, before the request is applied. */
export const newAgent = (): Agent => ({
  id: 0,
  name: '',
  agent_type: '',
  role: 'analyst',
  llm_provider: 'openai',
  llm_model: 'gpt-4o-mini',
  llm_type: 'quick',
  temperature: 0.7,
  max_tokens: null,
  prompt_template: null,
  capabilities_json: null,
  required_tools_json: null,
  requires_memory: false,
  memory_name: null,
  is_reserved: false,
  slot_name: null,
  config_json: null,
  is_active: true,
  version: '1.0.0',
  description: null,
  metadata_json: null,
  substitution_policy: 'SUBSTITUTION_POLICY_ANY',
  chain_revision: 0,
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

/** Applies a patch to an agent; its provider gets its canonical name. */
export function patchAgent(state: State, before: Agent, patch: Patch): Agent {
  const row = applyPatch(before, patch, newAgentFields);
  return { ...row, llm_provider: state.provider(row.llm_provider)?.name ?? row.llm_provider };
}

/** All violations of an agent's new values, except the uniqueness of its name. */
export function checkAgent(state: State, row: Agent, patch: Patch): Violation[] {
  const problems: Violation[] = [];
  const report = (field: string, description: string | undefined) => {
    if (description && !patch.invalid.has(field)) problems.push({ field: `agent.${field}`, description });
  };
  if (row.name === '') report('name', 'is required');
  if (row.agent_type === '') report('agent_type', 'is required');
  checkDefaultModel(state, row, patch, report);
  return problems;
}

type Report = (field: string, description: string | undefined) => void;

/** Both names must be empty, or both must be in the catalogue. */
function checkDefaultModel(state: State, row: Agent, patch: Patch, report: Report): void {
  const { llm_provider, llm_model } = row;
  if (!touches(patch, 'llm_provider', 'llm_model')) return;
  if (llm_provider === '' || llm_model === '') {
    const together = (other: string) => `must be empty if and only if ${other} is empty`;
    if (llm_model !== '') report('llm_provider', together('llm_model'));
    if (llm_provider !== '') report('llm_model', together('llm_provider'));
    return;
  }
  if (touches(patch, 'llm_provider')) report('llm_provider', providerProblem(state, llm_provider));
  report('llm_model', modelProblem(state, llm_provider, llm_model, { allowUnknownModel: false }));
}
