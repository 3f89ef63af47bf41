import { generateText } from 'ai';
import { afterEach, describe, expect, it } from 'vitest';
import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { connect } from '../../../src/client/ai/index.js';
import { speak } from '../../support/scripted_models.js';
import { startScriptedProvider } from '../../support/scripted_provider.js';
import { agent, type CataloguePart, config, startFakeWatch } from '../fake_watch.js';

const prompt = 'hello';

/** A client of an agent whose only hop is at a scripted provider; the key is in the environment. */
async function connected() {
  const provider = await startScriptedProvider(speak('hi'));
  const watch = await startFakeWatch();
  const local: CataloguePart = {
    provider: {
      name: 'local',
      dialect: 'DIALECT_OPENAI_COMPATIBLE',
      wire_api: 'WIRE_API_CHAT_COMPLETIONS',
      base_url: provider.url,
      api_key_env_vars: ['LOCAL_LLM_API_KEY'],
      enabled: true,
    },
  };
  const configAt = (revision: number, model_name: string) => config(1, revision, { provider: 'local', model_name });
  let stream: Parameters<NonNullable<typeof watch.onStream>>[0] | undefined;
  watch.onStream = (opened) => {
    stream = opened;
    opened.start().snapshot(10, [agent('trader', 1, { configs: [configAt(1, 'first')] })], [local]);
  };
  process.env['PROVIDER_ALLOW_KEY_VARS'] = 'LOCAL_LLM_API_KEY';
  process.env['LOCAL_LLM_API_KEY'] = 'sk-local';
  const client = connect({ address: watch.address, agents: ['trader'] });
  await client.ready();
  const change = (revision: number, model: string) =>
    stream?.change(revision, [agent('trader', revision, { configs: [configAt(revision, model)] })]);
  return { client, provider, change };
}

afterEach(() => {
  delete process.env['PROVIDER_ALLOW_KEY_VARS'];
  delete process.env['LOCAL_LLM_API_KEY'];
});

describe('connect of the entry point for the AI SDK', () => {
  it('returns a client whose agents have models that use the newest configuration in each call', async () => {
    const { client, provider, change } = await connected();
    const receipts: Receipt[] = [];
    client.on('receipt', (receipt) => receipts.push(receipt));
    const model = client.agent('trader').languageModel();
    expect((await generateText({ model, prompt })).text).toBe('hi');
    change(11, 'second');
    await expect.poll(() => client.agent('trader').resolve().hops[0]?.model_name).toBe('second');
    await generateText({ model, prompt });
    expect(provider.requests.map(({ body }) => body.model)).toEqual(['first', 'second']);
    expect(provider.requests[0]?.headers.authorization).toBe('Bearer sk-local');
    expect(receipts.map(({ revision, run_id }) => [revision, run_id])).toEqual([
      [10n, ''],
      [11n, ''],
    ]);
    client.close();
  });

  it('returns runs whose agents have models that are pinned, with the id of the run in receipts', async () => {
    const { client, provider, change } = await connected();
    const ids: string[] = [];
    client.on('receipt', ({ run_id }) => ids.push(run_id));
    const run = client.run({ id: 'run-7' });
    const model = run.agent('trader').languageModel({ mode: 'whole' });
    change(11, 'second');
    await expect.poll(() => client.agent('trader').resolve().hops[0]?.model_name).toBe('second');
    await generateText({ model, prompt });
    expect(provider.requests[0]?.body.model).toBe('first');
    await generateText({ model: run.agent('trader').languageModel({ runId: 'other' }), prompt });
    expect(ids).toEqual(['run-7', 'other']);
    client.close();
  });

  it('throws a TypeError for wrong options, and reports a listener of receipts that throws', async () => {
    const { client } = await connected();
    expect(() => client.agent('trader').languageModel({ deadlineMs: -1 })).toThrow(TypeError);
    client.on('receipt', () => {
      throw new Error('broken listener');
    });
    await generateText({ model: client.agent('trader').languageModel(), prompt });
    expect(client.warnings.map(({ kind }) => kind)).toEqual(['LISTENER_FAILED']);
    client.close();
  });
});
