import type { Hop } from '../../../gen/ts/agentllm/v1/finding.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { minRevision } from '../kit/lists.js';
import { small, table } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { agent, configId } from '../kit/values.js';
import { findingLines } from '../kit/writes.js';
import { allowUnknownModel, configBody, configFields } from './config_fields.js';

/** `agentllm configs validate`: what the lint says of what is stored, or of what would be. */
export const validateConfig: RemoteCommand = {
  name: 'validate',
  about: 'say what is wrong or risky about a config, a chain or a proposal; nothing is written and nobody is asked',
  more: 'An id lints a stored config, --agent the chain of an agent. With options such as --model it lints a proposal: a\nchange of the config with the id, or a new config for the agent. Exit code 1: there are errors.',
  inputs: [
    { name: '[id]', kind: configId, help: 'a stored config, or the one that the proposal would change' },
    { name: 'agent', to: 'agent', kind: agent, help: 'the agent, by name or id' },
    ...configFields,
    allowUnknownModel,
    minRevision,
  ],
  body: configBody,
  patches: true,
  examples: [
    ['agentllm configs validate 8', 'a config as it is stored, in its chain'],
    ['agentllm configs validate --agent trader', 'the whole chain'],
    ['agentllm configs validate 8 --model openai/gpt-4o --temperature 0.2', 'a change, before it is made'],
  ],
  next: 'agentllm configs health asks the providers whether keys and models are good',
  async run(call) {
    const response = await call.api.configs.validateConfig(call.request(targetOf(call)));
    const { findings, hops, acceptable } = response;
    const wrong = !acceptable || findings.some(({ severity }) => severity === 'SEVERITY_ERROR');
    call.print(response, () => {
      const verdict = acceptable ? (findings.length === 0 ? 'all is well' : 'it can be used') : 'it would be refused';
      return [verdict + findingLines(findings), hops.length > 0 && hopTable(hops)].filter(Boolean).join('\n\n');
    });
    return wrong ? Exit.refused : Exit.done;
  },
};

/** Which of its three targets the request has. */
function targetOf({ inputs, local }: Call): Record<string, unknown> {
  const config = inputs.message['config'] as { readonly id?: number } | undefined;
  const id = local<number>('[id]') ?? (config?.id || undefined);
  if (id === undefined && !('agent' in inputs.message))
    throw new UsageError('name what to validate: the id of a config, or --agent');
  if (config) return { config: { ...config, ...(id !== undefined && { id }) } };
  return { id };
}

/** What would be tried, in order, with what would be sent. */
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
