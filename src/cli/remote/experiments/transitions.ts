import type { Experiment } from '../../../../gen/ts/agentllm/v1/experiment.js';
import { type ParsedInputs, UsageError } from '../../kit/inputs.js';
import type { Call, RemoteCommand } from '../../kit/remote_command.js';
import { flag, word } from '../../kit/values.js';
import { etagInput, writeInputs, writeSummary } from '../../kit/writes.js';
import { configNamed, modelOf } from '../config_fields.js';
import { agentOf, agentOption, nameArgument, titleOf } from './fields.js';
import { percentText, settingsText } from './variants.js';

/* The commands that change the state of an experiment. */

const CREATE = 'agentllm experiments create model --agent trader --variant cheap=openai/gpt-5.4-mini@50% --metric cost';
const inputs = [nameArgument('name'), agentOption, etagInput('etag'), ...writeInputs];

const nameIn = (call: Call) => (call.inputs.message as { name: string }).name;

/** Prints the summary of a state change and its effect on calls. */
function printChange(
  call: Call,
  response: { readonly experiment: Experiment | undefined; readonly revision: bigint },
  done: string,
  more: (changed: Experiment) => readonly string[],
): undefined {
  const changed = response.experiment as Experiment;
  return call.print(response, () =>
    [writeSummary(call, done, titleOf(changed), response), ...more(changed)].join('\n'),
  );
}

const sharesOf = ({ variants }: Experiment) =>
  variants.map((one) => `  ${percentText(one.weight_basis_points)} ${one.name}: ${settingsText(one)}`);

export const start: RemoteCommand = {
  name: 'start',
  description: 'start an experiment: from now on, subjects are assigned to variants',
  more: 'After the start, the variants, the metric, the subject and alpha are fixed; weights can be changed.',
  inputs,
  examples: [
    [CREATE, 'create one'],
    ['agentllm experiments start model --reason "the cheaper model may do"', 'start it'],
  ],
  next: 'agentllm experiments results <name> shows the results; only calls with a subject count',
  async run(call) {
    const response = await call.api.experiments.startExperiment(call.request(await agentOf(call, nameIn(call))));
    return printChange(call, response, 'started', sharesOf);
  },
};

export const pause: RemoteCommand = {
  name: 'pause',
  description: 'pause an experiment: every call uses the settings of the control, and no call is counted',
  inputs,
  examples: [
    [CREATE, 'create one'],
    ['agentllm experiments start model', 'start it'],
    ['agentllm experiments pause model --reason "release day"', 'pause it'],
  ],
  next: 'agentllm experiments resume <name> resumes it; every subject gets its variant again',
  async run(call) {
    const response = await call.api.experiments.pauseExperiment(call.request(await agentOf(call, nameIn(call))));
    return printChange(call, response, 'paused', () => []);
  },
};

export const resume: RemoteCommand = {
  name: 'resume',
  description: 'resume an experiment that is paused: every subject gets the variant that it had',
  more: 'If a guardrail paused it and is still violated, it is paused again: change the guardrail, or set the weight of the\nvariant to 0, before.',
  inputs,
  examples: [
    [`${CREATE} && agentllm experiments start model`, 'create and start one'],
    ['agentllm experiments pause model', 'pause it'],
    ['agentllm experiments resume model', 'resume it'],
  ],
  async run(call) {
    const response = await call.api.experiments.resumeExperiment(call.request(await agentOf(call, nameIn(call))));
    return printChange(call, response, 'resumed', sharesOf);
  },
};

export const conclude: RemoteCommand = {
  name: 'conclude',
  description: 'end an experiment, and apply the settings of a winner to the primary config of the agent',
  more: 'The change of the config and the end of the experiment are one revision. The results can still be read.',
  inputs: [
    nameArgument('name'),
    agentOption,
    {
      name: 'winner',
      to: 'winner',
      kind: word('variant'),
      help: 'the variant whose settings the primary config gets',
    },
    { name: 'without-winner', kind: flag, help: 'end the experiment without changing a config' },
    {
      name: 'clear-api-key',
      to: 'clear_api_key',
      kind: flag,
      help: 'remove the API key and the credential of the base config if the provider of the winner is different',
    },
    etagInput('etag'),
    ...writeInputs,
  ],
  examples: [
    [CREATE, 'create one'],
    ['agentllm experiments start model', 'start it'],
    ['agentllm experiments conclude model --winner cheap --reason "as good, and cheaper"', 'end it with a winner'],
  ],
  next: 'agentllm resolve <agent> shows the new settings of the agent',
  prepare: requireDecision,
  async run(call) {
    const response = await call.api.experiments.concludeExperiment(call.request(await agentOf(call, nameIn(call))));
    const { config } = response;
    return printChange(call, response, 'concluded', ({ winner }) =>
      config ? [`  ${configNamed(config)}, its primary config, has the settings of ${winner}: ${modelOf(config)}`] : [],
    );
  },
};

function requireDecision(parsed: ParsedInputs): ParsedInputs {
  const hasWinner = 'winner' in parsed.message;
  const isWithout = parsed.local.get('without-winner') === true;
  const problem = (typed: string, description: string) => UsageError.of([{ typed, description }]);
  if (hasWinner && isWithout) throw problem('--without-winner', 'cannot be combined with --winner');
  if (!hasWinner && !isWithout)
    throw problem(
      '--winner',
      'is required: a variant that agentllm experiments results <name> shows as better, or the control; --without-winner changes no config',
    );
  return parsed;
}
