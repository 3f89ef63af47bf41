import { generateText } from 'ai';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import { connect as connectAi } from '../../src/client/ai/index.js';
import { connect, type ResidentOptions } from '../../src/client/index.js';
import { connect as connectLangchain } from '../../src/client/langchain/index.js';
import { Segment } from '../../src/client/usage/segment.js';
import { speak } from '../support/scripted_models.js';
import { startScriptedProvider } from '../support/scripted_provider.js';
import { useService } from '../support/service.js';
import { until } from '../support/until.js';
import { agent, openai, startFakeWatch } from './fake_watch.js';
import { makeDirectory } from './usage/support.js';

/* Model calls of both entry points, whose attempts are recorded by a real service. */

beforeAll(() => {
  process.env['OPENAI_API_KEY'] = 'sk-test';
  // The receipts contain what the SDK would print as warnings.
  Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });
});
afterAll(() => {
  delete process.env['OPENAI_API_KEY'];
  Reflect.deleteProperty(globalThis, 'AI_SDK_LOG_WARNINGS');
});

/** A `fetch` that sends the requests to a scripted provider. */
async function scriptedFetch(): Promise<typeof fetch> {
  const provider = await startScriptedProvider(speak('hi'));
  return (input, init) => fetch(new URL(new URL(String(input)).pathname, provider.url), init);
}

/** A client for the AI SDK, with the receipts and warnings that it has emitted. */
async function startClient(options: Partial<ResidentOptions> & { readonly address: string }) {
  const client = connectAi({ agents: ['trader'], ...options });
  onTestFinished(() => client[Symbol.asyncDispose]());
  const receipts: Receipt[] = [];
  const warnings: string[] = [];
  client.on('receipt', (receipt) => receipts.push(receipt));
  client.on('warning', ({ kind, message }) => warnings.push(`${kind} ${message}`));
  await client.ready();
  const model = client.agent('trader').languageModel({ fetch: await scriptedFetch() });
  return { client, receipts, warnings, call: () => generateText({ model, prompt: 'hello', maxRetries: 0 }) };
}

const service = useService('embedded', {}, [
  { role: 'ROLE_ADMIN' },
  { role: 'ROLE_AGENT', agents: ['trader'] },
  { role: 'ROLE_VIEWER' },
]);
const address = () => `127.0.0.1:${service().port}`;
const tokenOf = (at: number) => service().tokens[at]?.text ?? '';

beforeAll(async () => {
  await service().configs.upsertPrimaryConfig({
    agent: { name: 'trader' },
    config: { provider: 'openai', model_name: 'gpt-5.4' },
  });
});

/** What the service reports when the attempts of receipts are sent once more: it counts none again. */
async function recordAgain(receipts: readonly Receipt[]) {
  const admin = connect({ address: address(), token: tokenOf(0) });
  onTestFinished(() => admin.close());
  const records = receipts.flatMap(({ attempts, agent_id, agent, run_id }) =>
    attempts.map((attempt) => ({ attempt, agent_id, agent, run_id })),
  );
  return admin.usage.recordUsage({ records });
}

describe('usage of a client', () => {
  it('is recorded for the AI SDK, also in runs, and is complete when the client is closed', async () => {
    const { client, receipts, call } = await startClient({ address: address(), token: tokenOf(1) });
    await call();
    const run = client.run({ id: 'run-7' });
    const model = run.agent('trader').languageModel({ fetch: await scriptedFetch() });
    await generateText({ model, prompt: 'hello' });
    await client[Symbol.asyncDispose]();
    expect(receipts.map(({ run_id }) => run_id)).toEqual(['', 'run-7']);
    expect(client.spool.stats()).toMatchObject({ recorded: 2, acknowledged: 2, dropped: 0, inMemory: 0 });
    const { results, known_count } = await recordAgain(receipts);
    expect(known_count).toBe(2);
    expect(results.every(({ cost_nano_usd = 0n }) => cost_nano_usd > 0n)).toBe(true);
  });

  it('is recorded for LangChain', async () => {
    const client = connectLangchain({ address: address(), token: tokenOf(1), agents: ['trader'] });
    onTestFinished(() => client[Symbol.asyncDispose]());
    const receipts: Receipt[] = [];
    client.on('receipt', (receipt) => receipts.push(receipt));
    await client.ready();
    await client
      .agent('trader')
      .chatModel({ fetch: await scriptedFetch() })
      .invoke('hello');
    expect(await client.spool.flush()).toBe(true);
    expect((await recordAgain(receipts)).known_count).toBe(1);
  });

  it('is not recorded with usage: false', async () => {
    const { client, receipts, call } = await startClient({ address: address(), token: tokenOf(1), usage: false });
    await call();
    expect(client.spool.stats().recorded).toBe(0);
    expect((await recordAgain(receipts)).new_count).toBe(1);
  });

  it('is reported as not recorded, once and with the remedy, when the token may not record it; calls continue', async () => {
    const { client, warnings, call } = await startClient({ address: address(), token: tokenOf(2) });
    await call();
    expect(await client.spool.flush(5_000)).toBe(false);
    await call();
    expect(await client.spool.flush(5_000)).toBe(false);
    await until(() => warnings.length > 0);
    expect(warnings).toEqual([expect.stringMatching(/^USAGE_NOT_RECORDED .*agentllm token create --role agent/)]);
    expect(client.spool.stats()).toMatchObject({ recorded: 2, acknowledged: 0, inMemory: 2 });
    expect(client.spool.stats().error?.code).toBe('PERMISSION_DENIED');
  });

  it('is reported as not recorded when the service is older and has no UsageService', async () => {
    const watch = await startFakeWatch();
    watch.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1)], [openai()]);
    const { client, warnings, call } = await startClient({ address: watch.address });
    await call();
    expect(await client.spool.flush(5_000)).toBe(false);
    await until(() => warnings.length > 0);
    expect(warnings).toEqual([expect.stringMatching(/^USAGE_NOT_RECORDED .*older than this client/)]);
  });

  it('does not delay calls when neither the disk nor the service responds', async () => {
    let respond = () => {};
    const response = new Promise<void>((resolve) => {
      respond = resolve;
    });
    const append = vi.spyOn(Segment.prototype, 'append').mockReturnValue(response);
    onTestFinished(() => append.mockRestore());
    const usage = { directory: await makeDirectory(), closeMs: 0 };
    const { client, call } = await startClient({ address: address(), token: tokenOf(1), usage });
    // Runs before the client is closed, so that it can close its file.
    onTestFinished(() => respond());
    for (let at = 0; at < 20; at++) await call();
    await until(() => append.mock.calls.length > 0);
    expect(client.spool.stats()).toMatchObject({ recorded: 20, dropped: 0 });
  });
});
