import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import { AgentLLMError } from '../../client/index.js';
import { UsageError } from '../kit/inputs.js';
import { visible } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { configId, flag, int64 } from '../kit/values.js';
import { etagInput, findingLines, keyInput, writeInputs, writeSummary } from '../kit/writes.js';
import { differences } from './changes.js';
import { configNamed } from './config_fields.js';
import { differenceTable } from './diff.js';
import { agentNames, changeRecordOf } from './history.js';

/** `agentllm rollback`: a config as it was, or everything that one revision changed, as a new revision. */
export const rollback: RemoteCommand = {
  name: 'rollback',
  about: 'return a config to what it was at a revision, or undo everything that one revision changed',
  more: `With --to it returns one config; a config that was deleted comes back under its id. With --revision it undoes a whole
revision, such as a bulk change, in one step: agents and configs that it created are deleted, those that it changed or
deleted are restored. If anything was changed again since, it names that and writes nothing.
The history holds no keys. The key that the config has now stays where it is for the provider and the origin that the
earlier state names, and is taken away otherwise; where the earlier state had a key of its own and none fits, give one
with --api-key, or say --without-key.`,
  inputs: [
    { name: '[id]', to: 'id', kind: configId, help: 'the config, by its id; not with --revision' },
    {
      name: 'revision',
      kind: { ...int64, value: 'revision' },
      help: 'undo everything that this store revision changed',
    },
    {
      name: 'to',
      to: 'to_revision',
      kind: { ...int64, value: 'revision' },
      help: 'the store revision to return to, as agentllm history shows it',
    },
    {
      ...keyInput,
      help: 'bring the API key that cannot be restored: asked for at a terminal, else read from standard input',
    },
    {
      name: 'without-key',
      to: 'without_key',
      kind: flag,
      help: 'do without API keys of their own that cannot be restored',
    },
    etagInput('etag'),
    ...writeInputs,
  ],
  examples: [
    ['agentllm configs update 8 --temperature 0.2', 'makes revision 4 on a fresh service'],
    ['agentllm rollback 8 --to 3 --dry-run', 'what would change'],
    ['agentllm rollback 8 --to 3 --reason "was better before"', 'and back'],
    ['agentllm configs bulk trader market_analyst --temperature 0', 'makes revision 6'],
    ['agentllm rollback --revision 6 --reason "not all of them"', 'undoes the bulk change as one'],
  ],
  next: 'agentllm history <id> shows it',
  async run(call) {
    checkTarget(call);
    if (call.local('revision') !== undefined) return undoRevision(call);
    const before = await currentOf(call);
    const response = await call.api.configs.rollbackConfig(call.request());
    const config = response.config as AgentLLMConfig;
    const { id, to_revision, validate_only } = call.inputs.message as { readonly id: number } & Record<string, unknown>;
    // A dry run has no id to say of one that comes back.
    const what = `${configNamed({ ...config, id })} (to its state at revision ${to_revision})`;
    const all = differences(before, config);
    return call.print({ ...response, differences: all }, () => {
      const heads = validate_only ? (['NOW', 'THEN'] as const) : (['BEFORE', 'NOW'] as const);
      const exception =
        call.inputs.message['without_key'] || 'api_key' in call.inputs.message ? 'but for its API key' : '';
      const table = all.length === 0 ? `it is as it was then ${exception}`.trim() : differenceTable(all, heads, before);
      return `${writeSummary(call, 'rolled back', what, response)}\n${table}${findingLines(response.findings)}`;
    });
  },
};

function checkTarget({ inputs: { message, local } }: Call): void {
  if (!local.has('revision')) {
    if (!('id' in message)) throw new UsageError('give the id of a config with --to, or --revision');
    if (!('to_revision' in message))
      throw new UsageError('give --to with the revision to return to, as agentllm history shows it');
    return;
  }
  const wrong = Object.entries({ id: '<id>', to_revision: '--to', api_key: '--api-key', etag: '--etag' });
  const typed = wrong.filter(([field]) => field in message).map(([, name]) => name);
  if (typed.length > 0) throw new UsageError(`--revision undoes a whole revision, and takes no ${typed.join(', ')}`);
}

async function undoRevision(call: Call): Promise<undefined> {
  const revision = call.local<bigint>('revision') as bigint;
  const { without_key, ...request } = call.request<Record<string, unknown>>();
  const response = await call.api.configs.rollbackRevision({
    ...request,
    revision,
    without_keys: without_key === true,
  });
  const names = call.json ? new Map<number, string>() : await agentNames(call.api, response.entries);
  return call.print(response, () => {
    if (response.entries.length === 0) return `nothing is left to undo of revision ${revision}`;
    const records = response.entries.map((entry) => changeRecordOf(entry, names));
    const lines = records.map(({ about, what }) => `  ${visible(about)}  ${visible(what)}`);
    return `${writeSummary(call, 'undone', `revision ${revision}`, response)}\n${lines.join('\n')}${findingLines(response.findings)}`;
  });
}

/** The config as it is, or nothing when it was deleted. */
async function currentOf({ api, inputs }: Call): Promise<AgentLLMConfig | undefined> {
  try {
    return (await api.configs.getConfig({ id: inputs.message['id'] as number })).config;
  } catch (error) {
    if (error instanceof AgentLLMError && error.reason === 'CONFIG_NOT_FOUND') return undefined;
    // What is wrong with the request is said by the method that is asked for.
    if (error instanceof AgentLLMError && error.code === 'INVALID_ARGUMENT') return undefined;
    throw error;
  }
}
