import type { Attempt, Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { Resolution } from '../../client/resolution_types.js';
import { receiptJson } from '../../client/runtime/receipt_json.js';
import { faultProblem, faultsFor, rehearsableFaults } from '../../rehearsal/fault_choice.js';
import type { Rehearsed } from '../../rehearsal/rehearsal.js';
import { resolutionOf } from '../../rehearsal/resolution.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { agentArgument, type Column, tableOf } from '../kit/lists.js';
import { counted, small, terminal, visible } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { BadValue, flag, integer, type Kind, list } from '../kit/values.js';

import { assumptions, providersDown } from './resolve.js';

/** The most faults of one rehearsal. */
const MAX_FAULTS = 100;
/** How long a rehearsal runs before its progress is printed, in ms. */
const QUIET_MS = 1_000;
/** Stands in the table for the call without a fault. */
const NONE = 'none';

const fault: Kind = {
  value: 'fault',
  suggestions: rehearsableFaults,
  read(raw) {
    const problem = faultProblem(raw);
    if (problem !== undefined) throw new BadValue(problem);
    return raw;
  },
};

const count: Kind = {
  value: 'count',
  read(raw) {
    const value = integer.read(raw) as number;
    if (value < 1) throw new BadValue('must be at least 1');
    return value;
  },
};

/** `agentllm rehearse`: calls the chain of an agent at a fake provider, once for each fault. */
export const rehearseAgent: RemoteCommand = {
  name: 'rehearse',
  description: 'show what an agent does when a provider fails: its chain is called at a fake provider, fault by fault',
  more: `The chain and its parameters come from the service. Each hop is called at a fake provider in this process with a
made-up key: no provider is contacted and nothing is changed. Waits are not real, so a rehearsal takes seconds. Each
attempt is printed as the number of its hop and its result, with what follows in parentheses.
Exit code 1: a call fails although its fault permits other attempts.`,
  inputs: [
    agentArgument,
    {
      name: 'fault',
      kind: list(fault),
      help: 'a fault with its options, rate-limit,times=1; can be repeated (default: none, and one of each error class)',
    },
    { name: 'all', kind: flag, help: 'all faults that the provider of the first hop can have' },
    { name: 'hops', kind: count, help: 'how many hops have the fault, from the first one on (default: 1)' },
    { name: 'stream', kind: flag, help: 'with a stream in live mode: parts are emitted as they arrive' },
    { name: 'whole', kind: flag, help: 'with a stream in whole mode: parts are held until the response is complete' },
    ...assumptions,
  ],
  examples: [
    ['agentllm rehearse trader', 'one fault of each error class'],
    ['agentllm rehearse trader --fault overloaded,times=1 --fault cut-stream --stream', 'two faults, with a stream'],
    ['agentllm rehearse trader --all --json', 'all faults, with the receipts, for a program'],
  ],
  next: 'agentllm configs upsert <agent> --fallback provider/model adds a hop; docs/rehearsal.md lists the faults',
  async run(call) {
    const options = optionsOf(call);
    const resolution = resolutionOf(
      await call.api.configs.resolveConfig(call.request({ provider_down: providersDown(call) })),
    );
    const results = await runRehearsal(call, resolution, options);
    call.print(jsonOf(resolution, options, results), () => textOf(resolution, options, results));
    return results.length === 0 || results.some(({ result }) => result === 'fails') ? Exit.failed : Exit.done;
  },
};

interface Options {
  readonly mode: 'generate' | 'live' | 'whole';
  readonly failingHops: number;
  /** Empty: one fault of each class. */
  readonly faults: readonly string[];
  readonly all: boolean;
}

function optionsOf(call: Call): Options {
  const [isStream, isWhole, all] = ['stream', 'whole', 'all'].map((name) => call.local(name) === true);
  const faults = call.local<readonly string[]>('fault') ?? [];
  if (isStream && isWhole) throw new UsageError('--stream is a stream in live mode: use it or --whole');
  if (all && faults.length > 0) throw new UsageError('--all includes every fault: omit --fault');
  if (faults.length > MAX_FAULTS)
    throw UsageError.of([{ typed: '--fault', description: `must be given at most ${MAX_FAULTS} times` }]);
  const mode = isWhole ? 'whole' : isStream ? 'live' : 'generate';
  return { mode, faults, all: all === true, failingHops: call.local<number>('hops') ?? 1 };
}

async function runRehearsal(call: Call, resolution: Resolution, options: Options): Promise<Rehearsed[]> {
  const [first] = resolution.hops;
  if (!first) return [];
  const faults = options.faults.length > 0 ? options.faults : [undefined, ...faultsFor(first, options.all)];
  const { rehearse } = await import('../../rehearsal/rehearsal.js');
  const started = performance.now();
  return rehearse(resolution, {
    ...options,
    faults,
    onStart: (name, index) => {
      const isLong = performance.now() - started > QUIET_MS;
      if (isLong && process.stderr.isTTY && !call.json) terminal.err(`${index + 1}/${faults.length}  ${name ?? NONE}`);
    },
  });
}

const jsonOf = ({ agent, revision, hops }: Resolution, { mode, failingHops }: Options, results: Rehearsed[]) => ({
  agent: agent.name,
  revision,
  mode,
  failing_hops: hops.slice(0, failingHops).map(({ index }) => index),
  hops: hops.map(({ index, provider, model_name, wire_api }) => ({ index, provider, model_name, wire_api })),
  calls: results.map(({ fault, errorClass, result, message, receipt }) => ({
    fault: fault ?? null,
    error_class: errorClass ?? null,
    result,
    message,
    receipt: receiptJson(receipt),
  })),
});

function textOf(resolution: Resolution, options: Options, results: readonly Rehearsed[]): string {
  const { agent, hops, skipped, revision } = resolution;
  const models = [...hops, ...skipped]
    .sort((a, b) => a.index - b.index)
    .map(
      (hop) =>
        `  hop ${hop.index}  ${hop.provider}/${hop.model_name}${'reason' in hop ? `, ${skipOf(hop.reason)}` : ''}`,
    );
  const head = [`${agent.name} at revision ${revision}, ${TITLES[options.mode]}`, ...models].map(visible).join('\n');
  if (hops.length === 0) return `${head}\n\nno model is left to try; agentllm resolve ${visible(agent.name)} shows why`;
  const failed = results.filter(({ result }) => result === 'fails').length;
  const hint = `agentllm configs upsert ${visible(agent.name)} --fallback provider/model adds a hop`;
  const summary = `${failed} of ${counted(results.length, 'call')} failed; ${hint}`;
  return [head, tableOf(results, { columns: columnsOf(skipped), empty: '' }), failed > 0 && summary]
    .filter(Boolean)
    .join('\n\n');
}

const TITLES = { generate: 'without a stream', live: 'stream in live mode', whole: 'stream in whole mode' };

/** @param skipped hops that no call tries; they are printed above the table. */
const columnsOf = (skipped: Resolution['skipped']): readonly Column<Rehearsed>[] => [
  ['FAULT', ({ fault: name }) => name ?? NONE],
  ['ATTEMPTS', ({ receipt }) => attemptsText(receipt, skipped)],
  ['OUTCOME', outcomeOf],
  ['TIME', ({ receipt }) => `${receipt.duration_ms / 1000} s`],
];

/** `0 rate-limit (retry)`, `1 ok`. */
function attemptText({ hop_index, error_class, action }: Attempt): string {
  if (error_class === 'ERROR_CLASS_UNSPECIFIED') return `${hop_index} ok`;
  return `${hop_index} ${small(error_class, 'ERROR_CLASS_')} (${words(action, 'ATTEMPT_ACTION_')})`;
}

function attemptsText({ attempts, skipped }: Receipt, always: Resolution['skipped']): string {
  const others = skipped.filter(({ hop_index }) => !always.some(({ index }) => index === hop_index));
  return [...attempts.map(attemptText), ...others.map((hop) => `${hop.hop_index} ${skipOf(hop.reason)}`)].join(', ');
}

const skipOf = (reason: string) => `skipped (${words(reason, 'SKIP_REASON_')})`;

const words = (value: string, prefix: string) => small(value, prefix).replaceAll('-', ' ');

function outcomeOf({ result, receipt: { hop_index, finish_reason } }: Rehearsed): string {
  switch (result) {
    case 'responds':
      return `hop ${hop_index} responds${finish_reason === 'stop' ? '' : ` (${finish_reason})`}`;
    case 'torn':
      return 'error after a part of the stream';
    case 'stops':
      return 'error, no other attempt is made';
    case 'fails':
      return 'FAILS, no attempt is left';
  }
}
