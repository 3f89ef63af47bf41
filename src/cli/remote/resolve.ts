import type { ResolvedConfig, ResolvedHop, SkippedHop } from '../../../gen/ts/agentllm/v1/resolution.js';
import { Exit } from '../kit/error_output.js';
import { type Input, UsageError } from '../kit/inputs.js';
import { agentArgument, type Column, minRevision, tableOf } from '../kit/lists.js';
import { formatValue, small, visible } from '../kit/print.js';
import { conditionsOf, inOut } from '../kit/rates.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { budget, flag, int64, list, provider, text } from '../kit/values.js';
import { findingLines } from '../kit/writes.js';
import { resolveAll } from './resolve_all.js';

/** The options under which an agent is resolved. */
export const assumptions: readonly Input[] = [
  {
    name: 'down',
    to: 'provider_down',
    kind: list(provider),
    help: 'a provider to treat as unavailable, by name or alias; can be repeated, or separated by commas',
  },
  {
    name: 'exhausted',
    to: 'budget_exhausted',
    kind: list(budget),
    help: 'the name of a budget that is treated as exhausted; can be repeated',
  },
  {
    name: 'subject',
    to: 'subject',
    kind: text,
    help: 'the subject that a running experiment of the agent assigns to a variant (default: none, which uses the control)',
  },
  { name: 'at', to: 'at_revision', kind: int64, help: 'resolve at this store revision (default: now)' },
  minRevision,
];

/** The providers that `--down` names. */
export const providersDown = ({ inputs }: Call): string[] =>
  ((inputs.message['provider_down'] ?? []) as readonly string[]).flatMap((names) => names.split(','));

/** `agentllm resolve`: the effective hops and parameters of an agent, with their provenance. */
export const resolveAgent: RemoteCommand = {
  name: 'resolve',
  description:
    'show the resolution of an agent: its models in order, the parameters sent, and where each value comes from',
  more: 'No provider is called. Exit code 1: an active agent has no usable model.',
  inputs: [
    { ...agentArgument, name: '[agent]' },
    { name: 'all', kind: flag, help: 'all agents at one revision, instead of one agent' },
    ...assumptions,
    { name: 'why', kind: flag, help: 'show the field and the revision that each value comes from' },
  ],
  examples: [
    ['agentllm resolve trader --subject run-17 --down claude', 'a subject of an experiment, if claude is unavailable'],
    ['agentllm resolve trader --at 3 --why', 'at revision 3, in detail'],
    ['agentllm resolve --all', 'all agents, one line each'],
  ],
  next: 'agentllm configs upsert <agent> changes it, agentllm history --agent <agent> shows its changes',
  async run(call) {
    const provider_down = providersDown(call);
    if (call.local('all') === true) return resolveAll(call, provider_down);
    if (!('agent' in call.inputs.message)) throw new UsageError('name an agent, or use --all');
    const response = await call.api.configs.resolveConfig(call.request({ provider_down }));
    const resolved = response.resolved as ResolvedConfig;
    call.print(response, () => textOf(resolved, response.revision, call.local('why') === true));
    return resolved.hops.length === 0 ? Exit.failed : Exit.done;
  },
};

function textOf(resolved: ResolvedConfig, revision: bigint, why: boolean): string {
  const { agent_name, hops, skipped, findings, substitution_policy, experiment } = resolved;
  const policy = small(substitution_policy, 'SUBSTITUTION_POLICY_');
  const head = [
    `${visible(agent_name)} at revision ${revision}, substitution ${policy}`,
    ...experimentLines(experiment),
  ];
  const empty = 'no model is left to try';
  return [
    `${head.join('\n')}\n${tableOf(hops, { columns: hopColumns, empty })}`,
    skipped.length > 0 && tableOf(skipped, { columns: skippedColumns, empty: '' }),
    hops.length > 0 &&
      tableOf(why ? hops.flatMap(valuesOf) : hops.flatMap(groupedSources), { columns: originColumns(why), empty: '' }),
    findings.length > 0 && findingLines(findings).trimStart(),
  ]
    .filter(Boolean)
    .join('\n\n');
}

/** The variant whose settings the first hop has, and why. */
function experimentLines(resolved: ResolvedConfig['experiment']): string[] {
  if (!resolved) return [];
  const { experiment, variant, subject, state, counted, bucket } = resolved;
  const why = counted
    ? `subject ${visible(subject)} is in bucket ${bucket}`
    : state === 'EXPERIMENT_STATE_PAUSED'
      ? 'the experiment is paused; calls do not count'
      : 'no --subject; calls do not count';
  return [`experiment ${visible(experiment)}, variant ${visible(variant)}: ${why}`];
}

type Origin = Pick<ResolvedHop, 'source' | 'config_id'>;

/** `config 8`, `config 8, fallback`, `agent` */
function originOf({ source, config_id }: Origin): string {
  if (source === 'HOP_SOURCE_AGENT') return 'agent';
  return `config ${config_id}${source === 'HOP_SOURCE_FALLBACK' ? ', fallback' : ''}`;
}

const keyOf = ({ key_source, key_name, api_key_state }: ResolvedHop) =>
  [
    small(key_source, 'KEY_SOURCE_'),
    key_name.replaceAll(',', ' or '),
    api_key_state === 'API_KEY_STATE_UNREADABLE' && '(unreadable)',
  ]
    .filter(Boolean)
    .join(' ');

/** `2 / 10; above 272k 4 / 15` */
function priceOf({ price: resolved }: ResolvedHop): string {
  const price = resolved?.price;
  if (!price) return '';
  return [inOut(price), ...conditionsOf(price)].filter(Boolean).join('; ');
}

const hopColumns: readonly Column<ResolvedHop>[] = [
  ['HOP', ({ index }) => String(index)],
  ['MODEL', ({ provider, model_name }) => `${provider}/${model_name}`],
  ['FROM', originOf],
  ['API', ({ wire_api }) => small(wire_api, 'WIRE_API_')],
  ['SENT', ({ parameters }) => parameters.map(({ wire_name, value_json }) => `${wire_name}=${value_json}`).join(' ')],
  ['TIMEOUT', ({ request_timeout_ms }) => (request_timeout_ms === undefined ? '' : `${request_timeout_ms} ms`)],
  ['KEY', keyOf],
  ['USD/M IN / OUT', priceOf],
];

const skippedColumns: readonly Column<SkippedHop>[] = [
  ['HOP', ({ index }) => String(index)],
  ['SKIPPED', ({ provider, model_name }) => `${provider}/${model_name}`],
  ['FROM', originOf],
  ['WHY', ({ reason }) => small(reason, 'SKIP_REASON_').replaceAll('-', ' ')],
];

/** A value and its provenance. */
interface Source {
  readonly hop: number;
  readonly what: string;
  readonly from: string;
  readonly path: string;
  readonly revision: bigint;
}

const valuesOf = ({ index, provenance }: ResolvedHop): Source[] =>
  provenance.map(({ field, source, resource, path, revision }) => ({
    hop: index,
    what: field,
    from: `${small(source, 'VALUE_SOURCE_')} ${resource}`,
    path,
    revision,
  }));

/** The values grouped by their source, one line each. */
function groupedSources(hop: ResolvedHop): Source[] {
  const sources = new Map<string, Source>();
  for (const value of valuesOf(hop)) {
    const before = sources.get(value.from);
    const what = value.what.replace('parameters.', '');
    sources.set(value.from, { ...value, what: before ? `${before.what}, ${what}` : what });
  }
  return [...sources.values()];
}

const originColumns = (why: boolean): readonly Column<Source>[] => [
  ['HOP', ({ hop }) => String(hop)],
  [why ? 'VALUE' : 'VALUES', ({ what }) => what],
  ['COME FROM', ({ from }) => from],
  ...(why ? ([['ITS FIELD', ({ path }: Source) => path]] as const) : []),
  ['CHANGED AT', ({ revision }) => formatValue(revision)],
];
