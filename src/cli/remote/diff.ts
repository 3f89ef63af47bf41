import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import { Exit } from '../kit/error_output.js';
import { minRevision } from '../kit/lists.js';
import { table } from '../kit/print.js';
import type { RemoteCommand } from '../kit/remote_command.js';
import { configId, flag, int64, type Kind } from '../kit/values.js';
import { type Difference, differences, displayDifferences, valueText } from './changes.js';

const NOW = 'now';
const revisionOrNow: Kind = {
  value: 'revision',
  suggestions: [NOW],
  read: (raw) => (raw === NOW ? undefined : int64.read(raw)),
};

/** `agentllm diff`: the differences between two states of a config. */
export const diff: RemoteCommand = {
  name: 'diff',
  description: 'compare two states of a config, field by field',
  more: `A state is the config at a store revision, as agentllm history shows it. Deleted configs can be compared too. The exit
code is 0; with --exit-code it is 1 when the states differ, as in git.`,
  inputs: [
    { name: '<id>', to: 'id', kind: configId, help: 'the config, by its id' },
    { name: '<revision>', to: 'at_revision', kind: int64, help: 'a store revision' },
    { name: '[other]', kind: revisionOrNow, help: 'another store revision, or now (default: now)' },
    { name: 'exit-code', kind: flag, help: 'end with exit code 1 when the states differ' },
    minRevision,
  ],
  examples: [
    ['agentllm configs update 8 --temperature 0.2', 'creates revision 4 on a fresh service'],
    ['agentllm diff 8 3', 'the changes since revision 3'],
    ['agentllm diff 8 3 4 --json', 'between two revisions, for a program'],
  ],
  next: 'agentllm rollback <id> --to <revision> rolls back the changes since then',
  async run(call) {
    const at = (at_revision: bigint) => call.api.configs.getConfigRevision(call.request({ at_revision }));
    const first = call.inputs.message['at_revision'] as bigint;
    const before = await at(first);
    const second = call.local<bigint>('[other]') ?? before.revision;
    const after = await at(second);
    const all = differences(before.config, after.config);
    const states = {
      before: { revision: first, config: before.config },
      after: { revision: second, config: after.config },
    };
    call.print({ id: call.inputs.message['id'], differences: all, ...states }, () => {
      const heads = [`AT ${first}`, `AT ${second}`] as const;
      return all.length === 0
        ? `no difference between ${first} and ${second}`
        : differenceTable(all, heads, before.config);
    });
    return all.length > 0 && call.local('exit-code') ? Exit.failed : Exit.done;
  },
};

/** @param before the first state, for its unchanged fields. */
export function differenceTable(
  all: readonly Difference[],
  heads: readonly [before: string, after: string],
  before: AgentLLMConfig | undefined,
): string {
  return table(
    ['FIELD', ...heads],
    displayDifferences(all, { ...before }).map((one) => [one.field, valueText(one.before), valueText(one.after)]),
  );
}
