import { generateText, streamText } from 'ai';
import { describe, expect, it } from 'vitest';
import { speak } from '../../support/scripted_models.js';
import { failure, startScriptedProvider } from '../../support/scripted_provider.js';
import { withVariants } from '../runtime/experiment_agent.js';
import { chainAgent, summary, type TestHop, TestRuntime } from '../runtime/support.js';
import { modelOf } from './support.js';

const prompt = 'hello';
const REJECTS_SAMPLING: Partial<TestHop> = {
  facts: { parameter_rules: [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_REJECTED' }] },
};

async function start(more: Partial<TestHop> = {}) {
  const [a, b] = [await startScriptedProvider(speak('from a')), await startScriptedProvider(speak('from b'))];
  const other = chainAgent({ url: b.url, ...more }, { url: a.url });
  return { a, b, agent: withVariants(chainAgent({ url: a.url }), other) };
}

describe('languageModel({ subject })', () => {
  it('calls the model of the assigned variant, and the receipt names it', async () => {
    const { agent } = await start();
    const runtime = new TestRuntime();
    const textFor = async (subject?: string) => {
      const { model } = modelOf(agent, { subject }, runtime);
      return [(await generateText({ model, prompt })).text, await streamText({ model, prompt }).text];
    };
    expect(await textFor('b-1')).toEqual(['from b', 'from b']);
    expect(await textFor('a-1')).toEqual(['from a', 'from a']);
    expect(await textFor()).toEqual(['from a', 'from a']);
    const named = runtime.receipts.map(({ experiment, variant, subject }) => [experiment, variant, subject]);
    expect(named).toEqual([
      ['models', 'b', 'b-1'],
      ['models', 'b', 'b-1'],
      ['models', 'control', 'a-1'],
      ['models', 'control', 'a-1'],
      ['', '', ''],
      ['', '', ''],
    ]);
  });

  it('keeps the variant when a fallback serves the call', async () => {
    const { agent, b } = await start();
    b.script(failure(500));
    const { model, runtime } = modelOf(agent, { subject: 'b-1' });
    const result = await generateText({ model, prompt });
    expect(result.text).toBe('from a');
    expect(result.providerMetadata?.['agentllm']).toMatchObject({ experiment: 'models', variant: 'b', hop_index: 1 });
    expect(summary(runtime.receipt).at(-1)).toBe('1 OK NONE');
  });

  it('leaves out sampling options where the model of the variant rejects sampling', async () => {
    const { agent, a, b } = await start(REJECTS_SAMPLING);
    for (const subject of ['b-1', 'a-1'])
      await generateText({ model: modelOf(agent, { subject }).model, prompt, presencePenalty: 0.5 });
    expect([a.requests[0]?.body.presence_penalty, b.requests[0]?.body.presence_penalty]).toEqual([0.5, undefined]);
  });

  it('asks for the URLs of the hops of the variant', async () => {
    const { agent } = await start();
    const subjects: unknown[] = [];
    const asked = {
      ...agent,
      resolve: (options = {}) => {
        subjects.push(options);
        return agent.resolve(options);
      },
    };
    await modelOf(asked, { subject: 'b-1' }).model.supportedUrls;
    expect(subjects).toEqual([{ subject: 'b-1' }]);
  });

  it('rejects a subject in the options of one call', async () => {
    const { agent, a } = await start();
    const { model } = modelOf(agent, { subject: 'a-1' });
    const call = generateText({ model, prompt, providerOptions: { agentllm: { subject: 'b-1' } } });
    await expect(call).rejects.toThrow(/subject is an option of the model/);
    expect(a.requests).toEqual([]);
  });
});
