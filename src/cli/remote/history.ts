import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import { ChangeAction, type ConfigRevision, type FieldChange } from '../../../gen/ts/agentllm/v1/history.js';
import type { AgentLLM } from '../../client/index.js';
import { type List, limitInput, minRevision, readAll } from '../kit/lists.js';
import { small, terminal } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { agent, choice, configId, list } from '../kit/values.js';
import {
  type ChangeRecord,
  type ChangeRecords,
  changeBlock,
  type Difference,
  describeDifferences,
  displayDifferences,
  valueText,
} from './changes.js';

/** A history can be long; the newest entries are shown by default. */
const DEFAULT_LIMIT = 50;
export const newestInput = {
  ...limitInput,
  help: `maximum number of entries, newest first (default: ${DEFAULT_LIMIT})`,
};

const kind = choice('RESOURCE_KIND_', 'kind', [
  'agent',
  'config',
  'credential',
  'provider',
  'model',
  'price',
  'budget',
  'experiment',
]);

const entryList: List<ConfigRevision> = {
  field: 'entries',
  columns: [],
  empty: 'no entries',
  defaultLimit: DEFAULT_LIMIT,
  fetchPage: (api, request) => api.configs.listConfigRevisions(request),
};

/** `agentllm history`: the recorded changes with actor, time and reason. */
export const history: RemoteCommand = {
  name: 'history',
  description: 'show who changed what, when and why, newest first',
  more: 'The history of a config, of an agent with its configs, or of everything. A deleted resource is given by its id.',
  inputs: [
    { name: '[id]', to: 'config_id', kind: configId, help: 'a config, by its id' },
    { name: 'agent', to: 'agent', kind: agent, help: 'only changes of this agent and its configs, by name or id' },
    { name: 'kind', to: 'kinds', kind: list(kind), help: 'only changes of this kind of resource; can be repeated' },
    newestInput,
    minRevision,
  ],
  examples: [
    ['agentllm history 8', 'one config'],
    ['agentllm history --agent trader', 'an agent with its configs'],
    ['agentllm history --kind provider --kind model --limit 3 --json', 'the catalogue, for a program'],
  ],
  next: 'agentllm diff <id> <revision> compares, agentllm rollback <id> --to <revision> restores',
  async run(call) {
    const { rows: entries, revision, more } = await readAll(call, entryList);
    const names = call.json ? new Map<number, string>() : await agentNames(call.api, entries);
    call.print({ entries, revision }, () => revisionsOf(entries, names).map(changeBlock).join('\n') || emptyFor(call));
    if (more && !call.json) terminal.err(`(the newest ${entries.length}; --limit shows more)`);
    return undefined;
  },
};

const emptyFor = ({ inputs }: Call) => {
  const isFiltered = Object.keys(inputs.message).some((field) => field !== 'min_revision');
  return isFiltered ? 'no entry of the history matches' : 'the history is empty';
};

/** The number of agents in one request. */
const PAGE = 1000;

/** The current names of agents, by id; without deleted agents. */
export async function agentNames(
  api: AgentLLM,
  entries: readonly { readonly agent_id?: number | undefined }[],
): Promise<Map<number, string>> {
  const ids = [...new Set(entries.flatMap(({ agent_id }) => agent_id ?? []))];
  const names = new Map<number, string>();
  for (let from = 0; from < ids.length; from += PAGE) {
    const agents: AgentRef[] = ids.slice(from, from + PAGE).map((id) => ({ id }));
    const { results } = await api.configs.batchGetPrimaryConfigs({ agents });
    for (const { agent_id, agent_name } of results) if (agent_name) names.set(agent_id, agent_name);
  }
  return names;
}

/** Groups entries by revision. */
function revisionsOf(entries: readonly ConfigRevision[], names: ReadonlyMap<number, string>): ChangeRecords[] {
  const revisions = new Map<bigint, ChangeRecords & { readonly records: ChangeRecord[] }>();
  for (const entry of entries) {
    const { revision, actor, method, reason, created_at } = entry;
    const known = revisions.get(revision) ?? { revision, actor, method, reason, created_at, records: [] };
    known.records.push(changeRecordOf(entry, names));
    revisions.set(revision, known);
  }
  return [...revisions.values()];
}

/** The text of an entry. */
export function changeRecordOf(entry: ConfigRevision, names: ReadonlyMap<number, string>): ChangeRecord {
  const { kind, id, name, agent_id, action } = entry;
  const what = `${NOUNS[kind] ?? 'thing'} ${kind === 'RESOURCE_KIND_CONFIG' ? `${id} ${name}` : name}`;
  const owner = agent_id === undefined ? undefined : (names.get(agent_id) ?? `agent #${agent_id}`);
  const subject = owner ?? SUBJECTS[kind] ?? 'catalogue';
  const done = small(action, 'CHANGE_ACTION_');
  if (action !== ChangeAction.UPDATE) return { subject, what: `${what} ${done}d${roleOf(entry)}${ratesOf(entry)}` };
  if (isRevocation(entry)) return { subject, what: `${what} revoked` };
  return {
    subject,
    what: `${what}: ${describeDifferences(entry.changes.map(differenceOf), unchangedOf(entry)) || 'no visible change'}`,
  };
}

const NOUNS: Readonly<Record<string, string>> = {
  RESOURCE_KIND_AGENT: 'agent',
  RESOURCE_KIND_CONFIG: 'config',
  RESOURCE_KIND_CREDENTIAL: 'credential',
  RESOURCE_KIND_PROVIDER: 'provider',
  RESOURCE_KIND_MODEL: 'model',
  RESOURCE_KIND_PRICE: 'price of',
  RESOURCE_KIND_TOKEN: 'token',
  RESOURCE_KIND_BUDGET: 'budget',
  RESOURCE_KIND_EXPERIMENT: 'experiment',
};
const SUBJECTS: Readonly<Record<string, string>> = { RESOURCE_KIND_CREDENTIAL: 'keys', RESOURCE_KIND_TOKEN: 'access' };

const isRevocation = ({ kind, changes }: ConfigRevision) =>
  kind === 'RESOURCE_KIND_TOKEN' && changes.some(({ field }) => field === 'revoked_at');

/** The role and agents of a token: `: agent for trader`. */
function roleOf({ kind, changes }: ConfigRevision): string {
  if (kind !== 'RESOURCE_KIND_TOKEN') return '';
  const now = (name: string) => parseJson(changes.find(({ field }) => field === name)?.after_json ?? '');
  const agents = now('agents') as readonly string[] | undefined;
  const scope = agents ? ` for ${agents.join(', ')}` : '';
  return `: ${small(String(now('role') ?? ''), 'ROLE_')}${scope}`;
}

/** The rates of a price: `: input USD/M 2, output USD/M 8`. */
function ratesOf({ kind, changes }: ConfigRevision): string {
  if (kind !== 'RESOURCE_KIND_PRICE') return '';
  const known = displayDifferences(changes.map(differenceOf)).filter(({ field }) => field.endsWith('USD/M'));
  const rates = known.map(({ field, before, after }) => `${field} ${valueText(after ?? before)}`);
  return rates.length > 0 ? `: ${rates.join(', ')}` : '';
}

const parseJson = (json: string): unknown => (json === '' ? undefined : JSON.parse(json));
const differenceOf = ({ field, before_json, after_json }: FieldChange): Difference => ({
  field,
  before: parseJson(before_json),
  after: parseJson(after_json),
});

/** Provider and model from the name of a config entry, for the half that did not change. */
function unchangedOf({ kind, name }: ConfigRevision): Readonly<Record<string, unknown>> {
  if (kind !== 'RESOURCE_KIND_CONFIG') return {};
  const at = name.indexOf('/');
  return { provider: name.slice(0, at), model_name: name.slice(at + 1) };
}
