import { generateText } from 'ai';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { connect } from '../../src/client/ai/index.js';
import { speak } from '../support/scripted_models.js';
import { failure, startScriptedProvider } from '../support/scripted_provider.js';
import { unique, useService } from '../support/service.js';

/* Calls and outcomes of an agent with an experiment, from the client to the results of a real service. */

beforeAll(() => {
  process.env['OPENAI_API_KEY'] = 'sk-test';
  Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });
});
afterAll(() => {
  delete process.env['OPENAI_API_KEY'];
  Reflect.deleteProperty(globalThis, 'AI_SDK_LOG_WARNINGS');
});

const service = useService('embedded');

/** A client of an agent whose experiment assigns every subject to `mini`; the calls go to a scripted provider. */
async function start() {
  const name = unique('agent');
  const agent = { name };
  await service().agents.createAgent({ agent: { name, agent_type: 'analyst' } });
  const fallback = { fallback_provider: 'openai', fallback_model: 'gpt-5.4-nano' };
  await service().configs.createConfig({ agent, config: { provider: 'openai', model_name: 'gpt-5.4', ...fallback } });
  const variants = [
    { name: 'now', control: true, weight_basis_points: 1 },
    { name: 'mini', weight_basis_points: 9999, overrides: { model_name: 'gpt-5.4-mini' } },
  ];
  const primary_metric = {
    kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
    outcome: 'hit',
    direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
  } as const;
  await service().experiments.createExperiment({ agent, experiment: { name: 'model', variants, primary_metric } });
  await service().experiments.startExperiment({ agent, name: 'model' });
  const provider = await startScriptedProvider(speak('hi'));
  const fetched: typeof fetch = (input, init) => fetch(new URL(new URL(String(input)).pathname, provider.url), init);
  const client = connect({ address: `127.0.0.1:${service().port}`, agents: [name] });
  onTestFinished(() => client[Symbol.asyncDispose]());
  await client.ready();
  const results = async () => {
    const { variants: all } = await service().experiments.getResults({ agent, name: 'model' });
    return all.find(({ variant }) => variant === 'mini');
  };
  return { name, client, provider, fetch: fetched, results };
}

it('a call and its outcome count for the variant of the subject', async () => {
  const { name, client, provider, fetch, results } = await start();
  const run = client.run({ id: 'run-1' });
  const agent = run.agent(name);
  const model = agent.languageModel({ subject: run.id, fetch });
  await generateText({ model, prompt: 'hello' });
  expect(provider.requests[0]?.body.model).toBe('gpt-5.4-mini');
  // The usage is still in the spool, so this only works because it is sent first.
  const outcome = await agent.recordOutcome({ name: 'hit', value: true, subject: run.id });
  expect(outcome).toMatchObject({ isKnown: false, experiment: 'model', variant: 'mini' });
  const again = await client.agent(name).recordOutcome({ name: 'hit', value: false, subject: run.id, ...outcome });
  expect(again.isKnown).toBe(true);
  // Without a subject, the agent of the run names its run.
  expect(await agent.recordOutcome({ name: 'return', value: -0.5 })).toMatchObject({ variant: 'mini' });
  expect(await results()).toMatchObject({ subjects: 1n, calls: 1n, fallback_calls: 0n });
  await expect(
    client.agent(name).recordOutcome({ name: 'hit', value: 1, subject: 'unseen' }, { deadlineMs: 500 }),
  ).rejects.toMatchObject({ code: 'FAILED_PRECONDITION', message: expect.stringContaining('NOT_SEEN') });
});

it('a call that a fallback served, and one that failed, count for the variant of the subject', async () => {
  const { name, client, provider, fetch, results } = await start();
  const call = (subject: string) =>
    generateText({ model: client.agent(name).languageModel({ subject, fetch }), prompt: 'hello', maxRetries: 0 });
  provider.script(failure(404, { code: 'model_not_found' }), speak('from the fallback'));
  expect((await call('a')).text).toBe('from the fallback');
  provider.script(failure(400));
  await expect(call('b')).rejects.toThrow();
  // A call without a subject does not count.
  provider.script(speak('hi'));
  await generateText({ model: client.agent(name).languageModel({ fetch }), prompt: 'hello' });
  expect(await client.spool.flush(20_000)).toBe(true);
  expect(await results()).toMatchObject({ subjects: 2n, calls: 2n, fallback_calls: 1n });
});
