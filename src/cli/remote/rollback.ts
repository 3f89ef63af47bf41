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

/** `agentllm rollback`: rolls back a config, or a whole revision, as a new revision. */
export const rollback: RemoteCommand = {
  name: 'rollback',
  description: 'roll a config back to an earlier revision, or roll back everything that one revision changed',
  more: `--to rolls back one config; a deleted config is created again under its id. --revision rolls back a whole revision, such
as a bulk change, in one step: agents and configs that the revision created are deleted, and those that it changed or
deleted get their earlier content. If something was changed again since then, the command names it and writes nothing.
The history contains no keys. The current key of the config is kept if it is for the provider and the origin of the
earlier state, and removed otherwise. If the earlier state had its own key and no key fits, use --api-key or
--without-key.`,
  inputs: [
    { name: '[id]', to: 'id', kind: configId, help: 'the config, by its id; not with --revision' },
    {
      name: 'revision',
      kind: { ...int64, value: 'revision' },
      help: 'roll back everything that this store revision changed',
    },
    {
      name: 'to',
      to: 'to_revision',
      kind: { ...int64, value: 'revision' },
      help: 'the store revision to roll back to, as agentllm history shows it',
    },
    {
      ...keyInput,
      help: 'the API key that cannot be restored: prompted for at a terminal, else read from standard input',
    },
    {
      name: 'without-key',
      to: 'without_key',
      kind: flag,
      help: 'restore configs without the API keys that cannot be restored',
    },
    etagInput('etag'),
    ...writeInputs,
  ],
  examples: [
    ['agentllm configs update 8 --temperature 0.2', 'creates revision 4 on a fresh service'],
    ['agentllm rollback 8 --to 3 --reason "was better before"', 'roll it back'],
    ['agentllm rollback --revision 5', 'roll back everything that revision 5 changed'],
  ],
  next: 'agentllm history <id> shows it',
  async run(call) {
    checkTarget(call);
    if (call.local('revision') !== undefined) return rollbackRevision(call);
    const before = await currentOf(call);
    const response = await call.api.configs.rollbackConfig(call.request());
    const config = response.config as AgentLLMConfig;
    const { id, to_revision, validate_only } = call.inputs.message as { readonly id: number } & Record<string, unknown>;
    // In a dry run, the response has no id for a deleted config.
    const what = `${configNamed({ ...config, id })} (to its state at revision ${to_revision})`;
    const all = differences(before, config);
    return call.print({ ...response, differences: all }, () => {
      const heads = validate_only ? (['NOW', 'THEN'] as const) : (['BEFORE', 'NOW'] as const);
      const exception =
        call.inputs.message['without_key'] || 'api_key' in call.inputs.message ? 'except for its API key' : '';
      const table =
        all.length === 0 ? `no difference to that revision ${exception}`.trim() : differenceTable(all, heads, before);
      return `${writeSummary(call, 'rolled back', what, response)}\n${table}${findingLines(response.findings)}`;
    });
  },
};

function checkTarget({ inputs: { message, local } }: Call): void {
  if (!local.has('revision')) {
    if (!('id' in message)) throw new UsageError('use the id of a config with --to, or --revision');
    if (!('to_revision' in message))
      throw new UsageError('use --to with the revision to roll back to, as agentllm history shows it');
    return;
  }
  const excluded = Object.entries({ id: '<id>', to_revision: '--to', api_key: '--api-key', etag: '--etag' });
  const typed = excluded.filter(([field]) => field in message).map(([, name]) => name);
  if (typed.length > 0)
    throw new UsageError(`--revision rolls back a whole revision and cannot be combined with ${typed.join(', ')}`);
}

async function rollbackRevision(call: Call): Promise<undefined> {
  const revision = call.local<bigint>('revision') as bigint;
  const { without_key, ...request } = call.request<Record<string, unknown>>();
  const response = await call.api.configs.rollbackRevision({
    ...request,
    revision,
    without_keys: without_key === true,
  });
  const names = call.json ? new Map<number, string>() : await agentNames(call.api, response.entries);
  return call.print(response, () => {
    if (response.entries.length === 0) return `nothing is left to roll back of revision ${revision}`;
    const records = response.entries.map((entry) => changeRecordOf(entry, names));
    const lines = records.map(({ subject, what }) => `  ${visible(subject)}  ${visible(what)}`);
    return `${writeSummary(call, 'rolled back', `revision ${revision}`, response)}\n${lines.join('\n')}${findingLines(response.findings)}`;
  });
}

/** The current config; undefined when it was deleted. */
async function currentOf({ api, inputs }: Call): Promise<AgentLLMConfig | undefined> {
  try {
    return (await api.configs.getConfig({ id: inputs.message['id'] as number })).config;
  } catch (error) {
    if (error instanceof AgentLLMError && error.reason === 'CONFIG_NOT_FOUND') return undefined;
    // RollbackConfig reports what is invalid in the request.
    if (error instanceof AgentLLMError && error.code === 'INVALID_ARGUMENT') return undefined;
    throw error;
  }
}
