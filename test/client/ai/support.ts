import type { LanguageModelV3 } from '@ai-sdk/provider';
import { AgentLanguageModel } from '../../../src/client/ai/language_model.js';
import type { ModelOptions } from '../../../src/client/runtime/call_settings.js';
import type { CallableAgent } from '../../../src/client/runtime/model_call.js';
import { chainAgent, type TestHop, TestRuntime } from '../runtime/support.js';

/** The version of the interface between the AI SDK and its models; the tests run with both lines of the AI SDK. */
export const SPECIFICATION = process.env['AGENTLLM_TEST_SPECIFICATION'] === 'v4' ? 'v4' : 'v3';

/** A model of the AI SDK for an agent, with its runtime. */
export function modelOf(agent: CallableAgent, options: ModelOptions = {}, runtime = new TestRuntime()) {
  const model = new AgentLanguageModel(SPECIFICATION, agent, runtime, [options]) as unknown as LanguageModelV3;
  return { model, runtime };
}

export const modelFor = (...hops: readonly TestHop[]) => modelOf(chainAgent(...hops));

/** The provider rows of the five wire forms, each at a URL. */
export const FORMS = {
  'openai chat': { dialect: 'DIALECT_OPENAI' },
  'openai responses': { dialect: 'DIALECT_OPENAI_RESPONSES' },
  anthropic: { dialect: 'DIALECT_ANTHROPIC' },
  deepseek: { name: 'deepseek', dialect: 'DIALECT_OPENAI_COMPATIBLE' },
  xai: { name: 'grok', dialect: 'DIALECT_OPENAI_COMPATIBLE' },
  'openai-compatible': { dialect: 'DIALECT_OPENAI_COMPATIBLE' },
} as const;
export type Form = keyof typeof FORMS;
