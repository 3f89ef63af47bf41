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

/** How many providers are asked at once: they are slow, and the service allows a few hundred checks a minute. */
const CONCURRENCY = 4;
const RETRY_DELAY_MS = 10_000;
/** The service gives providers 10 s, and answers then. */
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

/** `agentllm configs health`: has the service ask the providers of configs whether keys and models are good. */
export const configHealth: RemoteCommand = {
  name: 'health',
  about: 'ask the providers of configs whether key and model are good; costs no tokens',
  more: "Each hop is asked with the key that it would use: the config's own, its credential's, or that in the environment of\nthe service. Exit code 1: a hop is not ok.",
  inputs: [
    { name: '[id]', kind: configId, help: 'the config, by its id' },
    { name: 'agent', to: 'agent', kind: agent, help: 'all configs of this agent, by name or id' },
    { name: 'all', kind: flag, help: 'all configs of all agents' },
    { name: 'last', kind: flag, help: 'show what the last checks found, and ask nobody' },
    { name: 'status', to: 'statuses', kind: list(status), help: 'with --last, only configs with a hop in this state' },
    { ...limitInput, help: 'how many configs at most (default: all)' },
    minRevision,
  ],
  examples: [
    ['agentllm configs health 8', 'one config'],
    ['agentllm configs health --agent trader', 'all that the trader has'],
    ['agentllm configs health --all --last', 'what was found before'],
  ],
  timeoutMs: CHECK_TIMEOUT_MS,
  next: 'agentllm providers check-key <provider> tries a key before it is stored anywhere',
  async run(call) {
    const { health, revision } = await readHealth(call);
    call.print({ health, revision }, () => tableOf(health.flatMap(rowsOf), { columns, empty: emptyFor(call) }));
    return health.some(({ hops }) => hops.some(({ status }) => status !== 'CHECK_STATUS_OK'))
      ? Exit.refused
      : Exit.done;
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
    throw new UsageError('name what to check: the id of one config, --agent for all of an agent, or --all');
  if ('statuses' in call.inputs.message && !call.local('last')) throw new UsageError('--status belongs to --last');
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

/** Checks several, a few at a time, in their order; one that is deleted meanwhile is left out. */
async function checkAll(call: Call, ids: readonly number[]): Promise<ConfigHealth[]> {
  const results: (ConfigHealth | undefined)[] = [];
  let next = 0;
  let completed = 0;
  const worker = async () => {
    for (let at = next++; at < ids.length; at = next++) {
      const health = await checkWithRetry(call, ids[at] as number);
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

/** The service allows so many checks a minute; who wants more waits. */
async function checkWithRetry(call: Call, id: number): Promise<ConfigHealth | undefined> {
  for (;;) {
    try {
      return (await check(call, id)).health;
    } catch (error) {
      if (!(error instanceof AgentLLMError)) throw error;
      if (error.reason === 'CONFIG_NOT_FOUND') return undefined;
      if (error.reason !== 'TOO_MANY_CHECKS') throw error;
      terminal.err(`${error.message}; waiting`);
      await delay(error.retryAfterMs ?? RETRY_DELAY_MS);
    }
  }
}

const progressOf = ({ config_id, agent_name, hops }: ConfigHealth) =>
  `config ${config_id} of ${agent_name}: ${hops.map(({ status }) => small(status, 'CHECK_STATUS_')).join(', ')}`;

/** A row for each hop. */
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
  ['WHAT IT MEANS', ({ hop }) => hop.message],
];

const emptyFor = (call: Call) =>
  call.local('last')
    ? 'never checked; agentllm configs health --all asks the providers now'
    : 'no configs; agentllm configs create <agent> --model provider/model makes one';
