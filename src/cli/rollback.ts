import type { AgentLLMConfig } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import { AgentLLMError } from '../client/index.js';
import { differences } from './changes.js';
import { configNamed } from './config_fields.js';
import { differenceTable } from './diff.js';
import type { Call, RemoteCommand } from './remote.js';
import { configId, int64, said } from './values.js';
import { etagInput, findingLines, keyInput, writeInputs, wrote } from './writes.js';

/** `agentllm rollback`: a config as it was, as a new revision. */
export const rollback: RemoteCommand = {
  name: 'rollback',
  about: 'return a config to what it was at a revision; one that was deleted comes back under its id',
  more: `The history holds no keys. The key that the config has now stays where it is for the provider and the origin that the
earlier state names, and is taken away otherwise; where the earlier state had a key of its own and none fits, give one
with --api-key, or say --without-key.`,
  inputs: [
    { name: '<id>', to: 'id', kind: configId, help: 'the config, by its id' },
    {
      name: 'to',
      to: 'to_revision',
      kind: { ...int64, value: 'revision' },
      help: 'the store revision to return to, as agentllm history shows it; required',
    },
    {
      ...keyInput,
      help: 'bring the API key that cannot be restored: asked for at a terminal, else read from standard input',
    },
    { name: 'without-key', to: 'without_key', kind: said, help: 'do without an API key of its own' },
    etagInput('etag'),
    ...writeInputs,
  ],
  examples: [
    ['agentllm configs update 8 --temperature 0.2', 'makes revision 4 on a fresh service'],
    ['agentllm rollback 8 --to 3 --dry-run', 'what would change'],
    ['agentllm rollback 8 --to 3 --reason "was better before"', 'and back'],
  ],
  next: 'agentllm history <id> shows it',
  async run(call) {
    const before = await currentOf(call);
    const response = await call.api.configs.rollbackConfig(call.request());
    const config = response.config as AgentLLMConfig;
    const { id, to_revision, validate_only } = call.given.message as { readonly id: number } & Record<string, unknown>;
    // A dry run has no id to say of one that comes back.
    const what = `${configNamed({ ...config, id })} (to its state at revision ${to_revision})`;
    const all = differences(before, config);
    return call.answer({ ...response, differences: all }, () => {
      const heads = validate_only ? (['NOW', 'THEN'] as const) : (['BEFORE', 'NOW'] as const);
      const same = call.given.message['without_key'] || 'api_key' in call.given.message ? 'but for its API key' : '';
      const table = all.length === 0 ? `it is as it was then ${same}`.trim() : differenceTable(all, heads, before);
      return `${wrote(call, 'rolled back', what, response)}\n${table}${findingLines(response.findings)}`;
    });
  },
};

/** The config as it is, or nothing when it was deleted. */
async function currentOf({ api, given }: Call): Promise<AgentLLMConfig | undefined> {
  try {
    return (await api.configs.getConfig({ id: given.message['id'] as number })).config;
  } catch (error) {
    if (error instanceof AgentLLMError && error.reason === 'CONFIG_NOT_FOUND') return undefined;
    // What is wrong with the request is said by the method that is asked for.
    if (error instanceof AgentLLMError && error.code === 'INVALID_ARGUMENT') return undefined;
    throw error;
  }
}
