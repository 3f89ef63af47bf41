import { describe, expect, it } from 'vitest';
import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { CallAbortedError, ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import { callAttributes } from '../../../src/client/runtime/gen_ai.js';
import type { CallableAgent } from '../../../src/client/runtime/model_call.js';
import { recordsOf } from '../../../src/client/usage/usage_records.js';
import { recordProblem } from '../../../src/domain/usage_record.js';
import {
  chatCompletion,
  chatStream,
  events,
  failure,
  silence,
  startScriptedProvider,
  textChunk,
} from '../../support/scripted_provider.js';
import { callGenerate, callOf, callStream, chainAgent, failedCall, TestRuntime } from './support.js';

/* The receipts and the usage of the calls of an agent with an experiment. */

/** The agent with an experiment that assigns every subject to the variant `b`, unless it is paused. */
const withExperiment = (agent: CallableAgent, isPaused = false): CallableAgent => ({
  ...agent,
  resolve: (options = {}) => {
    const counted = options.subject !== undefined && !isPaused;
    const state = isPaused ? 'EXPERIMENT_STATE_PAUSED' : 'EXPERIMENT_STATE_RUNNING';
    const experiment = { experiment: 'models', variant: counted ? 'b' : 'control', state, counted } as const;
    return { ...agent.resolve(options), experiment };
  },
});
const fieldsOf = ({ experiment, variant, subject }: Receipt) => [experiment, variant, subject];
const callsOf = (receipt: Receipt) => recordsOf(receipt).map(({ call }) => call);

async function oneHop(...script: Parameters<typeof startScriptedProvider>) {
  const { url } = await startScriptedProvider(...script);
  return withExperiment(chainAgent({ url }));
}
const subject = 'user-7';

describe('the receipt of a call with a subject', () => {
  it('names experiment, variant and subject, and its usage has the call', async () => {
    const runtime = new TestRuntime();
    const agent = await oneHop(chatCompletion('hello'));
    const { receipt } = await callGenerate(runtime, callOf(agent, { subject, runId: 'run-1' }));
    expect(fieldsOf(receipt)).toEqual(['models', 'b', subject]);
    const [record, ...others] = recordsOf(receipt);
    expect(others).toEqual([]);
    expect(record).toMatchObject({
      experiment: 'models',
      variant: 'b',
      subject,
      run_id: 'run-1',
      call: {
        outcome: 'RECEIPT_OUTCOME_COMPLETED',
        duration_ms: receipt.duration_ms,
        hop_index: 0,
        last_attempt: true,
      },
    });
    expect(recordProblem(record as never)).toBeUndefined();
    expect(callAttributes(receipt)).toMatchObject({
      'agentllm.experiment.name': 'models',
      'agentllm.experiment.variant': 'b',
      'agentllm.experiment.subject': subject,
    });
  });

  it('keeps the assigned variant when a fallback serves the call', async () => {
    const runtime = new TestRuntime();
    const [a, b] = [await startScriptedProvider(failure(500)), await startScriptedProvider(chatCompletion('x'))];
    const agent = withExperiment(chainAgent({ url: a.url }, { url: b.url }));
    const { receipt } = await callGenerate(runtime, callOf(agent, { subject }));
    expect([...fieldsOf(receipt), receipt.hop_index]).toEqual(['models', 'b', subject, 1]);
    const calls = callsOf(receipt);
    expect(calls.length).toBeGreaterThan(1);
    expect(calls.map((call) => [call?.hop_index, call?.last_attempt])).toEqual(
      calls.map((_, at) => [1, at === calls.length - 1]),
    );
  });

  it('has them when the call fails', async () => {
    const runtime = new TestRuntime();
    const agent = await oneHop(failure(400));
    const { receipt } = await failedCall(callGenerate(runtime, callOf(agent, { subject })), ChainError);
    expect(fieldsOf(receipt)).toEqual(['models', 'b', subject]);
    expect(callsOf(receipt).at(-1)).toMatchObject({
      outcome: 'RECEIPT_OUTCOME_FAILED',
      hop_index: undefined,
      last_attempt: true,
    });
  });

  it('has them when the stream breaks after a part', async () => {
    const runtime = new TestRuntime();
    const agent = await oneHop(events([textChunk('part')], 'reset'));
    const { receipt } = await failedCall(callStream(runtime, callOf(agent, { subject })), TornStreamError);
    expect(fieldsOf(receipt)).toEqual(['models', 'b', subject]);
    expect(callsOf(receipt)).toEqual([
      { outcome: 'RECEIPT_OUTCOME_TORN', duration_ms: receipt.duration_ms, hop_index: 0, last_attempt: true },
    ]);
  });

  it('has them when the caller aborts', async () => {
    const runtime = new TestRuntime();
    const agent = await oneHop(silence);
    const signal = AbortSignal.timeout(50);
    const { receipt } = await failedCall(callGenerate(runtime, callOf(agent, { subject, signal })), CallAbortedError);
    expect(fieldsOf(receipt)).toEqual(['models', 'b', subject]);
    expect(callsOf(receipt).at(-1)).toMatchObject({ outcome: 'RECEIPT_OUTCOME_ABORTED', last_attempt: true });
  });

  it('has them when no attempt is made, and then no usage', async () => {
    const runtime = new TestRuntime();
    const agent = withExperiment(chainAgent({ url: 'http://127.0.0.1:9/v1', key: undefined }));
    const { receipt } = await failedCall(callStream(runtime, callOf(agent, { subject })), ChainError);
    expect(fieldsOf(receipt)).toEqual(['models', 'b', subject]);
    expect(recordsOf(receipt)).toEqual([]);
  });

  it.each(['live', 'whole'] as const)('has them in %s mode', async (mode) => {
    const agent = await oneHop(chatStream('a', 'b'));
    const { receipt } = await callStream(new TestRuntime(), callOf(agent, { subject, mode }));
    expect(fieldsOf(receipt)).toEqual(['models', 'b', subject]);
  });
});

describe('the receipt of a call that does not count', () => {
  it('has neither experiment, variant nor subject, without a subject and while the experiment is paused', async () => {
    const { url } = await startScriptedProvider(chatCompletion('hello'));
    const agents = [
      withExperiment(chainAgent({ url })),
      withExperiment(chainAgent({ url }), true),
      chainAgent({ url }),
    ];
    const subjects = [undefined, subject, subject];
    for (const [at, agent] of agents.entries()) {
      const { receipt } = await callGenerate(new TestRuntime(), callOf(agent, { subject: subjects[at] }));
      expect(fieldsOf(receipt)).toEqual(['', '', '']);
      expect(callsOf(receipt)).toEqual([undefined]);
      expect(Object.keys(callAttributes(receipt)).filter((name) => name.includes('experiment'))).toEqual([]);
    }
  });
});

describe('the option subject', () => {
  it('rejects an invalid subject', () => {
    const agent = chainAgent();
    for (const wrong of ['', 'a\0', 'x'.repeat(256), 7 as never])
      expect(() => callOf(agent, { subject: wrong })).toThrow(/^subject must/);
  });
});
