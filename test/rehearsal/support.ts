import type { Resolution, ResolutionHop } from '../../src/client/resolution_types.js';
import { type RehearsalOptions, type Rehearsed, rehearse } from '../../src/rehearsal/rehearsal.js';
import { chainAgent, summary, type TestHop } from '../client/runtime/support.js';

const OPENAI: TestHop = {
  url: 'https://api.openai.com/v1',
  provider: { name: 'openai', dialect: 'DIALECT_OPENAI' },
  model: 'gpt-4o',
  facts: { context_window_tokens: 128_000 },
  config: { temperature: 0 },
};
const CLAUDE: TestHop = {
  url: 'https://api.anthropic.com/v1',
  provider: { name: 'claude', dialect: 'DIALECT_ANTHROPIC' },
  model: 'claude-haiku-5-5',
  facts: { context_window_tokens: 1_000_000 },
};

/** A chain of two hops at two providers, the second with a larger context window. */
export const twoHops = (): Resolution => chainAgent(OPENAI, CLAUDE).resolve();

export const firstHop = (resolution: Resolution): ResolutionHop => resolution.hops[0] as ResolutionHop;

/** Rehearses one fault. */
export async function rehearseOne(
  resolution: Resolution,
  fault: string | undefined,
  options: Partial<RehearsalOptions> = {},
): Promise<Rehearsed> {
  const [result] = await rehearse(resolution, { faults: [fault], mode: 'generate', failingHops: 1, ...options });
  return result as Rehearsed;
}

/** The result, and the attempts as `0 RATE_LIMIT RETRY`. */
export const shown = ({ result, receipt }: Rehearsed): string[] => [result, ...summary(receipt)];
