import { describe, expect, it } from 'vitest';
import type { Admission, AttemptRequest } from '../../../src/client/budgets/admission.js';
import { CallAbortedError, ChainError } from '../../../src/client/runtime/chain_error.js';
import { chatCompletion, json, startScriptedProvider } from '../../support/scripted_provider.js';
import { callGenerate, callOf, chainAgent, failedCall, TestRuntime } from './support.js';

const ok = chatCompletion('hello');

/** An agent with two hops whose attempts are admitted by a function. */
async function budgeted(admit: (request: AttemptRequest) => Admission | Promise<Admission>, first = ok) {
  const [a, b] = [await startScriptedProvider(first), await startScriptedProvider(ok)];
  const agent = { ...chainAgent({ url: a.url }, { url: b.url }), admit };
  return { a, b, agent, runtime: new TestRuntime() };
}

const admitted = (reservationId: string, unused = () => {}): Admission => ({
  refused: undefined,
  reservationId,
  unused,
});
const refused = (budgets: readonly string[]): Admission => ({
  refused: 'SKIP_REASON_BUDGET_EXHAUSTED',
  detail: '"desk"',
  budgets,
});

describe('a call of an agent with budgets', () => {
  it('skips the hops that a budget refuses, and its receipt states why', async () => {
    const { a, b, agent, runtime } = await budgeted(({ hop }) =>
      hop.index === 0 ? refused(['desk']) : admitted('r1'),
    );
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect([a.requests.length, b.requests.length]).toEqual([0, 1]);
    expect(receipt.skipped).toMatchObject([{ hop_index: 0, reason: 'SKIP_REASON_BUDGET_EXHAUSTED', detail: '"desk"' }]);
    expect(receipt.exhausted_budgets).toEqual(['desk']);
    expect(receipt.attempts.map(({ reservation_id }) => reservation_id)).toEqual(['r1']);
  });

  it('names in its receipt the budgets that took effect in the resolution, not those that only warn', async () => {
    const { agent, runtime } = await budgeted(() => admitted('r1'));
    const resolve = () => ({
      ...agent.resolve(),
      exhausted_budgets: ['desk', 'warns'],
      limiting_budgets: ['desk'],
    });
    const { receipt } = await callGenerate(runtime, callOf({ ...agent, resolve }));
    expect(receipt.exhausted_budgets).toEqual(['desk']);
    const warned = () => ({ ...agent.resolve(), exhausted_budgets: ['warns'] });
    expect((await callGenerate(runtime, callOf({ ...agent, resolve: warned }))).receipt.exhausted_budgets).toEqual([]);
  });

  it('requests the permission of the budgets before each attempt and each retry', async () => {
    let asked = 0;
    const overloaded = json({ error: { message: 'overloaded' } }, 503);
    const { agent, runtime } = await budgeted(() => admitted(`r${++asked}`), overloaded);
    const { receipt } = await callGenerate(runtime, callOf(agent));
    const ids = receipt.attempts.map(({ reservation_id }) => reservation_id);
    expect(ids.length).toBeGreaterThanOrEqual(2);
    expect(ids).toEqual(ids.map((_, at) => `r${at + 1}`));
    expect(asked).toBe(ids.length);
  });

  it('fails without a request when every hop is refused', async () => {
    const { a, b, agent, runtime } = await budgeted(() => Promise.resolve(refused(['desk'])));
    const error = await failedCall(callGenerate(runtime, callOf(agent)), ChainError);
    expect(error.message).toContain('BUDGET_EXHAUSTED ("desk")');
    expect([a.requests.length, b.requests.length]).toEqual([0, 0]);
  });

  it('returns the unit of an attempt that is not made', async () => {
    let unused = 0;
    const aborting = new AbortController();
    const { agent, runtime } = await budgeted(() => {
      aborting.abort();
      return admitted('r1', () => unused++);
    });
    await failedCall(callGenerate(runtime, callOf(agent, { signal: aborting.signal })), CallAbortedError);
    expect(unused).toBe(1);
  });
});
