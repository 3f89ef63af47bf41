import { setTimeout as delay } from 'node:timers/promises';
import type { ConfigHealth, HopCheck } from '../../../gen/ts/agentllm/v1/check.js';
import { AgentLLMError } from '../../client/index.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { type Column, type List, limitInput, minRevision, readAll, tableOf } from '../kit/lists.js';
import { ago, formatValue, small, terminal, visible } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { agent, choice, configId, flag, list } from '../kit/values.js';
import { configList } from './config_fields.js';

/** The number of checks in progress: providers are slow, and the service allows a few hundred checks a minute. */
const CONCURRENCY = 4;
const RETRY_DELAY_MS = 10_000;
/** The service waits 10 s for a provider before it responds. */
export const CHECK_TIMEOUT_MS = 15_000;

const status = choice('CHECK_STATUS_', 'status', [
  'ok',
  'invalid',
  'unreachable',
  'rate-limited',
  'model-missing',
  'no-key',
  'key-unreadable',
  'forbidden',
  'no-credit',
  'unsupported',
  'provider-error',
  'address-refused',
  'provider-disabled',
]);

/** `agentllm configs health`: the service checks keys and models of configs with their providers. */
export const configHealth: RemoteCommand = {
  name: 'health',
  description: 'check the keys and models of configs with their providers; uses no model tokens',
  more: 'Each hop is checked with the key that it uses: the key of the config, of its credential, or in the environment of\nthe service. Exit code 1: a hop is not ok.',
  inputs: [
    { name: '[id]', kind: configId, help: 'the config, by its id' },
    { name: 'agent', to: 'agent', kind: agent, help: 'all configs of this agent, by name or id' },
    { name: 'all', kind: flag, help: 'all configs of all agents' },
    { name: 'last', kind: flag, help: 'show the stored results of the last checks' },
    { name: 'status', to: 'statuses', kind: list(status), help: 'with --last, only configs with a hop in this state' },
    { ...limitInput, help: 'maximum number of configs (default: all)' },
    minRevision,
  ],
  examples: [
    ['agentllm configs health 8', 'one config'],
    ['agentllm configs health --agent trader', 'all configs of the trader'],
    ['agentllm configs health --all --last', 'the stored results'],
  ],
  timeoutMs: CHECK_TIMEOUT_MS,
  next: 'agentllm providers check-key <provider> checks a key before it is stored',
  async run(call) {
    const { health, revision } = await readHealth(call);
    call.print({ health, revision }, () => tableOf(health.flatMap(rowsOf), { columns, empty: emptyFor(call) }));
    return health.some(({ hops }) => hops.some(({ status }) => status !== 'CHECK_STATUS_OK')) ? Exit.failed : Exit.done;
  },
};

interface HealthResult {
  readonly health: readonly ConfigHealth[];
  readonly revision: bigint;
}

async function readHealth(call: Call): Promise<HealthResult> {
  const id = call.local<number>('[id]');
  const targets = [id !== undefined, 'agent' in call.inputs.message, call.local('all') === true];
  if (targets.filter(Boolean).length !== 1)
    throw new UsageError('select what to check: the id of a config, --agent for all configs of an agent, or --all');
  if ('statuses' in call.inputs.message && !call.local('last')) throw new UsageError('--status requires --last');
  if (call.local('last')) {
    const { rows: health, revision } = await readAll(call, lastList(id));
    return { health, revision };
  }
  if (id !== undefined) {
    const { health, revision } = await check(call, id);
    return { health: health ? [health] : [], revision };
  }
  const { rows, revision } = await readAll(call, configList);
  return {
    health: await checkAll(
      call,
      rows.map((config) => config.id),
    ),
    revision,
  };
}

const lastList = (config_id = 0): List<ConfigHealth> => ({
  field: 'health',
  columns: [],
  empty: '',
  fetchPage: (api, request) => api.configs.listConfigHealth({ ...request, config_id }),
});

/** Checks configs with bounded concurrency and returns the results in order, without configs that were deleted meanwhile. */
async function checkAll(call: Call, ids: readonly number[]): Promise<ConfigHealth[]> {
  const results: (ConfigHealth | undefined)[] = [];
  let next = 0;
  let completed = 0;
  let hasWaited = false;
  const onWait = () => {
    if (!hasWaited && !call.json)
      terminal.err('the service permits no more checks for now; the command waits and continues by itself');
    hasWaited = true;
  };
  const worker = async () => {
    for (let at = next++; at < ids.length; at = next++) {
      const health = await checkWithRetry(call, ids[at] as number, onWait);
      results[at] = health;
      completed++;
      if (health && !call.json) terminal.err(`${completed}/${ids.length}  ${visible(progressOf(health))}`);
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return results.filter((health) => health !== undefined);
}

const check = (call: Call, id: number) =>
  call.api.configs.checkConfigHealth({ id, min_revision: (call.inputs.message['min_revision'] as bigint) ?? 0n });

/** Checks a config; waits while the rate limit of the service for checks is exceeded. */
async function checkWithRetry(call: Call, id: number, onWait: () => void): Promise<ConfigHealth | undefined> {
  for (;;) {
    try {
      return (await check(call, id)).health;
    } catch (error) {
      if (!(error instanceof AgentLLMError)) throw error;
      if (error.reason === 'CONFIG_NOT_FOUND') return undefined;
      if (error.reason !== 'TOO_MANY_CHECKS') throw error;
      onWait();
      await delay(error.retryAfterMs ?? RETRY_DELAY_MS);
    }
  }
}

const progressOf = ({ config_id, agent_name, hops }: ConfigHealth) =>
  `config ${config_id} of ${agent_name}: ${hops.map(({ status }) => small(status, 'CHECK_STATUS_')).join(', ')}`;

/** A table row: one hop of a config. */
interface Row {
  readonly health: ConfigHealth;
  readonly hop: HopCheck;
}
const rowsOf = (health: ConfigHealth): Row[] => health.hops.map((hop) => ({ health, hop }));

const columns: readonly Column<Row>[] = [
  ['CONFIG', ({ health }) => String(health.config_id)],
  ['AGENT', ({ health }) => health.agent_name],
  ['MODEL', ({ hop }) => `${hop.provider}/${hop.model_name}`],
  ['STATUS', ({ hop }) => small(hop.status, 'CHECK_STATUS_')],
  ['KEY', ({ hop }) => [small(hop.key_source, 'KEY_SOURCE_'), hop.key_name].filter(Boolean).join(' ')],
  ['MS', ({ hop }) => formatValue(hop.latency_ms)],
  ['CHECKED', ({ health }) => ago(health.checked_at) + (health.outdated ? ', changed since' : '')],
  ['MESSAGE', ({ hop }) => hop.message],
];

const emptyFor = (call: Call) =>
  call.local('last')
    ? 'never checked; agentllm configs health --all checks all configs now'
    : 'no configs; agentllm configs create <agent> --model provider/model creates one';
