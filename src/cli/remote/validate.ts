import type { Hop } from '../../../gen/ts/agentllm/v1/finding.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { minRevision } from '../kit/lists.js';
import { small, table } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { agent, configId } from '../kit/values.js';
import { findingLines } from '../kit/writes.js';
import { allowUnknownModel, configBody, configFields } from './config_fields.js';

/** `agentllm configs validate`: lints a stored config, a chain or a proposed change. */
export const validateConfig: RemoteCommand = {
  name: 'validate',
  description: 'lint a config, a chain or a proposed change; nothing is written and no provider is called',
  more: 'With an id it lints a stored config, with --agent the chain of an agent. With options such as --model it lints a\nproposal: a change of the config with the id, or a new config of the agent. Exit code 1: there are errors.',
  inputs: [
    { name: '[id]', kind: configId, help: 'a stored config, or the config that the proposal changes' },
    { name: 'agent', to: 'agent', kind: agent, help: 'the agent, by name or id' },
    ...configFields,
    allowUnknownModel,
    minRevision,
  ],
  body: configBody,
  patches: true,
  examples: [
    ['agentllm configs validate 8', 'a stored config, in its chain'],
    ['agentllm configs validate --agent trader', 'the whole chain'],
    ['agentllm configs validate 8 --model claude/claude-haiku-4-5 --temperature 0.2', 'a change, before it is made'],
  ],
  next: 'agentllm configs health checks keys and models with the providers',
  async run(call) {
    const response = await call.api.configs.validateConfig(call.request(targetOf(call)));
    const { findings, hops, acceptable } = response;
    const hasErrors = !acceptable || findings.some(({ severity }) => severity === 'SEVERITY_ERROR');
    call.print(response, () => {
      const verdict = acceptable ? (findings.length === 0 ? 'no findings' : 'accepted, with findings') : 'rejected';
      return [verdict + findingLines(findings), hops.length > 0 && hopTable(hops)].filter(Boolean).join('\n\n');
    });
    return hasErrors ? Exit.failed : Exit.done;
  },
};

/** The target of the request: a proposal, a stored config, or the chain of an agent. */
function targetOf({ inputs, local }: Call): Record<string, unknown> {
  const config = inputs.message['config'] as { readonly id?: number } | undefined;
  const id = local<number>('[id]') ?? (config?.id || undefined);
  if (id === undefined && !('agent' in inputs.message))
    throw new UsageError('select what to validate: the id of a config, or --agent');
  if (config) return { config: { ...config, ...(id !== undefined && { id }) } };
  return { id };
}

/** The hops in order, with the parameters that are sent. */
function hopTable(hops: readonly Hop[]): string {
  return table(
    ['HOP', 'FROM', 'MODEL', 'SENT'],
    hops.map((hop) => [
      String(hop.index),
      [small(hop.source, 'HOP_SOURCE_'), hop.config_id].filter((part) => part !== undefined).join(' '),
      `${hop.provider}/${hop.model_name}`,
      hop.parameters.map(({ wire_name, value_json }) => `${wire_name}=${value_json}`).join(' '),
    ]),
  );
}
