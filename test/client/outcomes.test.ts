import { describe, expect, it } from 'vitest';
import type { OutcomeRejection } from '../../gen/ts/agentllm/v1/experiment.js';
import { RecordOutcomeRequest, type RecordOutcomeResponse } from '../../gen/ts/agentllm/v1/experiment_service.js';
import type { Connection } from '../../src/client/connection.js';
import { AgentLLMError } from '../../src/client/error.js';
import { OutcomeReporter } from '../../src/client/outcomes.js';
import { NO_USAGE } from '../../src/client/usage/usage_spool.js';

type Result = RecordOutcomeResponse['results'][number];
const result = (fields: Partial<Result>): Partial<RecordOutcomeResponse> => ({
  results: [
    {
      outcome_id: 'id',
      status: 'OUTCOME_STATUS_NEW',
      rejection: 'OUTCOME_REJECTION_UNSPECIFIED',
      message: '',
      experiment: 'models',
      variant: 'b',
      ...fields,
    },
  ],
});
const rejection = (reason: OutcomeRejection) =>
  result({ status: 'OUTCOME_STATUS_REJECTED', rejection: reason, message: 'the reason', experiment: '', variant: '' });

/** A reporter whose requests get these responses in order, the last one again and again. */
function reporter(...responses: (Partial<RecordOutcomeResponse> | AgentLLMError)[]) {
  const log: (string | ReturnType<typeof RecordOutcomeRequest.decode>['outcomes'][number])[] = [];
  const calls = {
    deadlineMs: 10_000,
    call: async (_: unknown, make: () => { bytes: Buffer }) => {
      log.push(...RecordOutcomeRequest.decode(make().bytes).outcomes);
      const response = responses.length > 1 ? responses.shift() : responses[0];
      if (response instanceof AgentLLMError) throw response;
      return response;
    },
  } as unknown as Connection;
  const spool = {
    ...NO_USAGE,
    stats: () => ({ ...NO_USAGE.stats(), inMemory: 3 }),
    flush: async () => {
      log.push('flush');
      return true;
    },
  };
  return { log, outcomes: new OutcomeReporter(calls, spool) };
}

describe('OutcomeReporter', () => {
  it('sends the usage of the client before the outcome', async () => {
    const { log, outcomes } = reporter(result({ outcome_id: 'x' }));
    const observedAt = new Date('2026-11-01T00:00:00Z');
    const input = { name: 'hit', value: true, subject: 'user-7', experiment: 'models', observedAt };
    const recorded = await outcomes.record('trader', 'run-1', input);
    expect(recorded).toEqual({ outcomeId: 'x', isKnown: false, experiment: 'models', variant: 'b' });
    expect(log).toEqual([
      'flush',
      expect.objectContaining({
        agent: 'trader',
        name: 'hit',
        boolean: true,
        number: undefined,
        subject: 'user-7',
        run_id: 'run-1',
        experiment: 'models',
        observed_at: observedAt,
        outcome_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      }),
    ]);
  });

  it('repeats the report with the same id and time until the service has seen a call', async () => {
    const { log, outcomes } = reporter(rejection('OUTCOME_REJECTION_NOT_SEEN'), result({}));
    expect(await outcomes.record('trader', '', { name: 'pnl', value: -1.5, runId: 'run-2' })).toMatchObject({
      variant: 'b',
    });
    const [, first, second, ...others] = log;
    expect(others).toEqual([]);
    expect(first).toMatchObject({ number: -1.5, run_id: 'run-2' });
    expect(second).toEqual(first);
  });

  it('reports an outcome that is already stored as known', async () => {
    const { outcomes } = reporter(result({ status: 'OUTCOME_STATUS_KNOWN', experiment: '', variant: '' }));
    expect(await outcomes.record('trader', '', { name: 'hit', value: 1, subject: 's' })).toMatchObject({
      isKnown: true,
    });
  });

  it('rejects with the reason when the outcome is not stored', async () => {
    const cases: readonly (readonly [OutcomeRejection, string])[] = [
      ['OUTCOME_REJECTION_INVALID', 'INVALID_ARGUMENT'],
      ['OUTCOME_REJECTION_AGENT_NOT_ALLOWED', 'PERMISSION_DENIED'],
      ['OUTCOME_REJECTION_UNKNOWN_EXPERIMENT', 'NOT_FOUND'],
      ['OUTCOME_REJECTION_SEVERAL_SUBJECTS', 'FAILED_PRECONDITION'],
    ];
    for (const [reason, code] of cases) {
      const { log, outcomes } = reporter(rejection(reason));
      const error = await outcomes.record('trader', '', { name: 'hit', value: 1 }).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(AgentLLMError);
      expect(error).toMatchObject({ code, message: expect.stringContaining('the reason') });
      expect(log).toHaveLength(2);
    }
  });

  it('rejects when no call is seen until the deadline, and when the caller aborts', async () => {
    const { outcomes } = reporter(rejection('OUTCOME_REJECTION_NOT_SEEN'));
    const outcome = { name: 'hit', value: 1, subject: 's' };
    const late = outcomes.record('trader', '', outcome, { deadlineMs: 300 });
    await expect(late).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('NOT_SEEN'),
    });
    const started = performance.now();
    const aborted = outcomes.record('trader', '', outcome, { signal: AbortSignal.timeout(50) });
    await expect(aborted).rejects.toMatchObject({ message: expect.stringContaining('NOT_SEEN') });
    expect(performance.now() - started).toBeLessThan(5_000);
  });

  it('rejects with the error of the call, and for a value that is no number', async () => {
    const down = AgentLLMError.here('down', { code: 'UNAVAILABLE', method: 'm' });
    await expect(reporter(down).outcomes.record('trader', '', { name: 'hit', value: 1 })).rejects.toBe(down);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 'yes' as never])
      await expect(reporter(down).outcomes.record('trader', '', { name: 'hit', value })).rejects.toThrow(TypeError);
  });
});
