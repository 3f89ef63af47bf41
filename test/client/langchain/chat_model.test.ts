import { AIMessage, type AIMessageChunk, HumanMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { AgentChatModel } from '../../../src/client/langchain/chat_model.js';
import { checkOptions, type ModelOptions } from '../../../src/client/runtime/call_settings.js';
import { CallAbortedError, ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import type { FakeProvider } from '../../../src/fake_provider/fake_provider.js';
import { DEFAULT_TEXT } from '../../../src/fake_provider/responses/completion.js';
import { fakeProvider } from '../../fake_provider/support.js';
import { chainAgent, failedCall, summary, type TestHop, TestRuntime } from '../runtime/support.js';

/** The wire forms, each with the kind of the fake provider and the fields of its provider row. */
const FORMS = {
  'openai chat': { kind: 'openai', provider: { dialect: 'DIALECT_OPENAI' } },
  'openai responses': { kind: 'openai', provider: { dialect: 'DIALECT_OPENAI_RESPONSES' } },
  anthropic: { kind: 'anthropic', provider: { dialect: 'DIALECT_ANTHROPIC' } },
  deepseek: { kind: 'deepseek', provider: { name: 'deepseek', dialect: 'DIALECT_OPENAI_COMPATIBLE' } },
  xai: { kind: 'xai', provider: { name: 'grok', dialect: 'DIALECT_OPENAI_COMPATIBLE' } },
  'openai-compatible': { kind: 'compatible', provider: { dialect: 'DIALECT_OPENAI_COMPATIBLE' } },
} as const;
type Form = keyof typeof FORMS;
const NAMES = Object.keys(FORMS) as Form[];

interface Hop extends Omit<TestHop, 'url' | 'provider'> {
  readonly form?: Form;
  readonly fault?: string;
}

/** The chat model of an agent whose hops are at one fake provider. */
async function start(hops: readonly Hop[], options: ModelOptions = {}) {
  const rules = hops.flatMap(({ fault }, index) => (fault ? [{ match: { model: `m${index}` }, fault }] : []));
  const fake: FakeProvider = await fakeProvider({ script: { rules } });
  const chain = hops.map(({ form = 'openai-compatible', fault: _, ...hop }) => {
    const { kind, provider } = FORMS[form];
    return { url: fake.baseUrl(kind), provider, ...hop };
  });
  const runtime = new TestRuntime();
  checkOptions(options);
  const model = new AgentChatModel({ agent: chainAgent(...chain), runtime, options: [options] });
  const bodies = () => fake.requests.map(({ body }) => body as Record<string, unknown>);
  return { fake, runtime, model, bodies };
}

async function read(stream: AsyncIterable<AIMessageChunk>) {
  let text = '';
  let whole: AIMessageChunk | undefined;
  for await (const chunk of stream) {
    text += chunk.text;
    whole = whole ? whole.concat(chunk) : chunk;
  }
  return { text, whole };
}

const Decision = z.object({ side: z.enum(['buy', 'sell']), confidence: z.number().min(0).max(1) });
const getPrice = tool(async ({ ticker }: { ticker: string }) => `${ticker}: 5`, {
  name: 'getPrice',
  description: 'The price of a ticker',
  schema: z.object({ ticker: z.string() }),
});

describe.each(NAMES)('a chat model over %s', (form) => {
  it('responds with the parameters, the usage and the receipt of the hop', async () => {
    const { model, runtime, bodies } = await start([{ form, config: { temperature: 0, max_tokens: 777 } }]);
    const message = await model.invoke('Hello');
    expect(message.text).toBe(DEFAULT_TEXT);
    expect(message.usage_metadata?.output_tokens).toBe(60);
    expect(bodies()[0]).toMatchObject({ model: 'm0', temperature: 0 });
    const limits = ['max_tokens', 'max_completion_tokens', 'max_output_tokens'].map((name) => bodies()[0]?.[name]);
    expect(limits.filter((limit) => limit !== undefined)).toEqual([777]);
    expect(message.response_metadata['agentllm']).toMatchObject({
      receipt_id: runtime.receipt.receipt_id,
      outcome: 'RECEIPT_OUTCOME_COMPLETED',
    });
    expect(runtime.receipt.usage?.output_tokens).toBe(60);
  });

  it.each(['live', 'whole'] as const)('streams in %s mode, with usage and the receipt', async (mode) => {
    const { model, runtime } = await start([{ form }], { mode });
    const { text, whole } = await read(await model.stream('Hello'));
    expect(text).toBe(DEFAULT_TEXT);
    // @langchain/anthropic counts the token of the start of a message twice; the receipt does not.
    expect(whole?.usage_metadata?.output_tokens).toBe(form === 'anthropic' ? 61 : 60);
    expect(runtime.receipt.usage?.output_tokens).toBe(60);
    expect(whole?.response_metadata['agentllm']).toMatchObject({ receipt_id: runtime.receipt.receipt_id });
  });

  it('moves to the next hop after a failure, and fails without retries of LangChain', async () => {
    const { model, runtime, fake } = await start([{ fault: 'quota' }, { form }]);
    expect((await model.invoke('Hello')).text).toBe(DEFAULT_TEXT);
    expect(summary(runtime.receipt)).toEqual(['0 QUOTA NEXT_HOP', '1 OK NONE']);
    expect(fake.requests).toHaveLength(2);
    const failing = await start([{ form, fault: 'overloaded' }]);
    const error = await failedCall(failing.model.invoke('Hello'), ChainError);
    expect(error.name).toBe('ChainError');
    expect(failing.fake.requests).toHaveLength(3);
  });

  it.each(['invoke', 'stream'])(
    'calls a bound tool after a fallback, and continues with its result (%s)',
    async (how) => {
      const { model, runtime } = await start([{ fault: 'quota' }, { form }]);
      const bound = model.bindTools([getPrice]);
      const first =
        how === 'invoke'
          ? await bound.invoke('Hello')
          : ((await read(await bound.stream('Hello'))).whole as AIMessageChunk);
      expect(first.tool_calls).toMatchObject([{ name: 'getPrice', args: { ticker: expect.any(String) } }]);
      const result = await getPrice.invoke({
        ...(first.tool_calls?.[0] as never as object),
        type: 'tool_call',
      } as never);
      const last = await bound.invoke([new HumanMessage('Hello'), first, result as never]);
      expect(last.text).toBe(DEFAULT_TEXT);
      expect(runtime.receipts).toHaveLength(2);
    },
  );

  it.each([
    ['a zod schema', Decision],
    ['a JSON schema', z.toJSONSchema(Decision) as Record<string, unknown>],
  ])('responds with structured output after a fallback, for %s', async (_, schema) => {
    const { model } = await start([
      { fault: 'quota' },
      { form, facts: { supports_structured_output: form !== 'deepseek', supports_functions: true } },
    ]);
    const output = await model.withStructuredOutput(schema as typeof Decision).invoke('Decide, in JSON');
    expect(Decision.safeParse(output).success).toBe(true);
    const { raw, parsed } = await model
      .withStructuredOutput(schema as typeof Decision, { includeRaw: true, name: 'decision' })
      .invoke('Decide, in JSON');
    expect((raw as AIMessage).response_metadata['agentllm']).toMatchObject({ hop_index: 1 });
    expect(Decision.safeParse(parsed).success).toBe(true);
  });
});

describe('a chat model', () => {
  it('reports a torn stream with the text, and starts over in whole mode', async () => {
    const hops = [{ fault: 'cut-stream,after=3' }, {}];
    const { model, runtime, fake } = await start(hops);
    let text = '';
    const reading = (async () => {
      for await (const chunk of await model.stream('Hello')) text += chunk.text;
    })();
    const error = await failedCall(reading, TornStreamError);
    expect(DEFAULT_TEXT.startsWith(text)).toBe(true);
    expect([error.content, runtime.receipt.outcome]).toEqual([text, 'RECEIPT_OUTCOME_TORN']);
    expect(fake.requests).toHaveLength(1);
    const whole = await start(hops, { mode: 'whole' });
    expect((await read(await whole.model.stream('Hello'))).text).toBe(DEFAULT_TEXT);
  });

  it('ends with an AbortError when the caller aborts', async () => {
    const { model, runtime, fake } = await start([{ fault: 'silence' }]);
    const controller = new AbortController();
    const call = model.invoke('Hello', { signal: controller.signal });
    call.catch(() => {});
    await expect.poll(() => fake.requests.length).toBe(1);
    controller.abort();
    await expect(call).rejects.toMatchObject({ name: 'AbortError' });
    await expect.poll(() => runtime.receipts.length).toBe(1);
    expect(runtime.receipt.outcome).toBe('RECEIPT_OUTCOME_ABORTED');
    expect(CallAbortedError.name).toBe('CallAbortedError');
  });

  it('sends the options of the call in place of the parameters of the config, with 0 as 0', async () => {
    const { model, bodies } = await start([{ config: { temperature: 0.7 } }]);
    await model.withConfig({ temperature: 0, topP: 0, maxTokens: 9, seed: 0, stop: ['END'] }).invoke('Hello');
    expect(bodies()[0]).toMatchObject({ temperature: 0, top_p: 0, max_tokens: 9, seed: 0, stop: ['END'] });
  });

  it('skips hops that lack a capability, and forces no tool where the model rejects that', async () => {
    const { model, runtime, bodies } = await start([
      { facts: { supports_functions: false } },
      { facts: { supports_structured_output: false, supports_forced_tool_choice: false, supports_functions: true } },
    ]);
    await model.withStructuredOutput(Decision).invoke('Decide');
    expect(runtime.receipt.skipped).toEqual([]);
    expect(bodies()[0]).toHaveProperty('response_format');
    await model.bindTools([getPrice]).invoke('Hello');
    expect(runtime.receipts[1]?.skipped).toMatchObject([{ hop_index: 0, detail: 'functions' }]);
    const second = await start([
      { facts: { supports_structured_output: false, supports_forced_tool_choice: false, supports_functions: true } },
    ]);
    await second.model
      .withStructuredOutput(Decision)
      .invoke('Decide')
      .catch(() => {});
    expect(second.bodies()[0]).toMatchObject({ tool_choice: 'auto' });
    expect(second.runtime.receipt.adaptations).toEqual(['The schema is sent as a tool to p0/m0']);
  });

  it('removes signatures and ids from a prompt at another origin or key', async () => {
    const content = [
      { type: 'thinking', thinking: 'hm', signature: 'sig-1' },
      { type: 'text', text: 'earlier' },
    ];
    const earlier = new AIMessage({ content, id: 'msg_1', response_metadata: { agentllm_origin: 'elsewhere' } });
    const { model, bodies } = await start([{ form: 'anthropic' }]);
    await model.invoke([new HumanMessage('Hello'), earlier, new HumanMessage('and?')]);
    const sent = JSON.stringify(bodies()[0]);
    expect(sent).toContain('earlier');
    expect(sent).not.toMatch(/sig-1|msg_1|thinking/);
  });

  it('reports tokens to callbacks once', async () => {
    const { model } = await start([{}]);
    const tokens: string[] = [];
    const callbacks = [{ handleLLMNewToken: (token: string) => void tokens.push(token) }];
    const { text } = await read(await model.stream('Hello', { callbacks }));
    expect(tokens.join('')).toBe(text);
  });
});
