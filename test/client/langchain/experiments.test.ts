import { describe, expect, it } from 'vitest';
import { AgentChatModel } from '../../../src/client/langchain/chat_model.js';
import { speak } from '../../support/scripted_models.js';
import { startScriptedProvider } from '../../support/scripted_provider.js';
import { withVariants } from '../runtime/experiment_agent.js';
import { chainAgent, TestRuntime } from '../runtime/support.js';

describe('chatModel({ subject })', () => {
  it('calls the model of the assigned variant, and the receipt names it', async () => {
    const [a, b] = [await startScriptedProvider(speak('from a')), await startScriptedProvider(speak('from b'))];
    const agent = withVariants(chainAgent({ url: a.url }), chainAgent({ url: b.url }));
    const runtime = new TestRuntime();
    for (const [subject, text] of [
      ['b-1', 'from b'],
      ['a-1', 'from a'],
      [undefined, 'from a'],
    ] as const) {
      const model = new AgentChatModel({ agent, runtime, options: [{ subject }] });
      expect((await model.invoke('hello')).text).toBe(text);
    }
    expect(runtime.receipts.map(({ experiment, variant, subject }) => [experiment, variant, subject])).toEqual([
      ['models', 'b', 'b-1'],
      ['models', 'control', 'a-1'],
      ['', '', ''],
    ]);
  });
});
