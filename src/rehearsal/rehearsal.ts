import type { Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import type { Resolution, ResolutionHop } from '../client/resolution_types.js';
import { callSettings } from '../client/runtime/call_settings.js';
import { ChainError } from '../client/runtime/chain_error.js';
import { ruleOfClass } from '../client/runtime/error_class.js';
import { generate } from '../client/runtime/generate.js';
import { credentialOf } from '../client/runtime/hop_identity.js';
import type { CallableAgent, ModelCall } from '../client/runtime/model_call.js';
import { Runtime } from '../client/runtime/runtime.js';
import { type PartStream, stream } from '../client/runtime/stream.js';
import { Telemetry } from '../client/runtime/telemetry.js';
import { type FakeProvider, startFakeProvider } from '../fake_provider/fake_provider.js';
import { fetchAt } from './fake_fetch.js';
import { classOf, faultAt } from './fault_choice.js';
import { type AttemptSettings, requestText, textParts } from './text_call.js';
import { VirtualTime } from './virtual_time.js';

export interface RehearsalOptions {
  /** The faults to rehearse, in this order: `rate-limit,times=1`; undefined stands for a call without a fault. */
  readonly faults: readonly (string | undefined)[];
  /** Without a stream, or with one in live or whole mode. */
  readonly mode: 'generate' | 'live' | 'whole';
  /** How many hops have the fault, from the first one on. */
  readonly failingHops: number;
  /** Called before each call. */
  readonly onStart?: (fault: string | undefined, index: number) => void;
}

/**
 * How a call ended: with a response; with an error, as intended for errors that another hop would have too; with an error
 * after a part of the stream; or without a response although the chain tries other hops after this fault.
 */
export type RehearsalResult = 'responds' | 'stops' | 'torn' | 'fails';

/** One call of the rehearsed chain. */
export interface Rehearsed {
  /** undefined: a call without a fault. */
  readonly fault: string | undefined;
  /** The error class of the fault; undefined: none, or it depends on the call. */
  readonly errorClass: string | undefined;
  readonly result: RehearsalResult;
  /** The message of the error; empty if the call has a response. */
  readonly message: string;
  readonly receipt: Receipt;
}

/**
 * Calls the chain of an agent once for each fault, at a fake provider in this process. The origin of each hop is replaced,
 * and every key is made up, so that no provider is contacted. Calls do not affect each other: each has its own circuit
 * breakers. Time is virtual, and the random part of every wait is its mean, so that the result is the same every time.
 */
export async function rehearse(resolution: Resolution, options: RehearsalOptions): Promise<Rehearsed[]> {
  const time = new VirtualTime();
  const fake = await startFakeProvider({ clock: time.provider });
  try {
    const rehearsed: Rehearsed[] = [];
    for (const [index, fault] of options.faults.entries()) {
      options.onStart?.(fault, index);
      // Counts the requests anew for the options of faults.
      fake.setFaults({});
      rehearsed.push(await time.run(rehearseOne(resolution, fault, options, { time, fake })));
    }
    return rehearsed;
  } finally {
    await fake.close();
  }
}

interface Stage {
  readonly time: VirtualTime;
  readonly fake: FakeProvider;
}

async function rehearseOne(
  resolution: Resolution,
  fault: string | undefined,
  { mode, failingHops }: RehearsalOptions,
  { time, fake }: Stage,
): Promise<Rehearsed> {
  const failing = new Set(resolution.hops.slice(0, failingHops).map(({ index }) => index));
  const attempts: AttemptSettings = {
    faultOf: (hop) => (fault !== undefined && failing.has(hop.index) ? faultAt(hop, fault) : 'none'),
    begin: (signal) => time.attempt(signal),
  };
  const receipts: Receipt[] = [];
  const telemetry = new Telemetry(() => Promise.reject(new Error('A rehearsal has no spans')));
  const parts = { clock: time.engine, random: () => 0.5, telemetry };
  const runtime = new Runtime((receipt) => receipts.push(receipt), parts);
  const settings = callSettings({ mode: mode === 'whole' ? 'whole' : 'live', fetch: fetchAt(fake) });
  const call = { agent: rehearsedAgent(resolution), settings, overrides: {}, needs: {}, signal: undefined };
  const failure = await callOnce(runtime, call, attempts, mode === 'generate');
  const [receipt] = receipts;
  if (!receipt) throw failure ?? new Error('The call has no receipt');
  const errorClass = fault === undefined ? undefined : classOf(fault);
  return { fault, errorClass, result: resultOf(receipt), message: failure?.message ?? '', receipt };
}

/** The agent with its real resolution and made-up keys, one for each key of the chain. */
function rehearsedAgent(resolution: Resolution): CallableAgent {
  const credentials = [...new Set(resolution.hops.map(credentialOf))];
  const keyOf = (hop: ResolutionHop) => `rehearsal-key-${credentials.indexOf(credentialOf(hop))}`;
  return {
    name: resolution.agent.name,
    resolve: () => resolution,
    apiKey: async (hop) => (hop?.key.source === 'KEY_SOURCE_NONE' ? undefined : keyOf(hop as ResolutionHop)),
  };
}

/** Makes a call and reads its response to the end. Returns the error of the chain. */
async function callOnce(
  runtime: Runtime,
  call: ModelCall,
  attempts: AttemptSettings,
  isGenerate: boolean,
): Promise<ChainError | undefined> {
  try {
    if (isGenerate) await generate(runtime, call, (context) => requestText(context, attempts));
    else await readAll(await stream(runtime, call, textParts(attempts)));
    return undefined;
  } catch (error) {
    if (error instanceof ChainError) return error;
    throw error;
  }
}

async function readAll(parts: PartStream<string>): Promise<void> {
  while (!(await parts.next()).done);
}

function resultOf({ outcome, error_class }: Receipt): RehearsalResult {
  if (outcome === 'RECEIPT_OUTCOME_COMPLETED') return 'responds';
  if (outcome === 'RECEIPT_OUTCOME_TORN') return 'torn';
  return ruleOfClass(error_class).action === 'STOP' ? 'stops' : 'fails';
}
