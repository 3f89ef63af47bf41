import { createHash } from 'node:crypto';

/*
 * In a real application, the market shows whether an analyst was right. This file simulates it: the larger model is right
 * more often, so that the experiment has a known difference to detect.
 */

/** How often each model is right. */
export const HIT_RATES: Readonly<Record<string, number>> = {
  'openai/gpt-5.4-mini': 0.5,
  'claude/claude-sonnet-5-5': 0.8,
};

/** Whether a model is right about a share: the same in every run. */
export function isRight(model: string, share: string): boolean {
  const rate = HIT_RATES[model];
  if (rate === undefined) throw new Error(`no outcome is planted for ${model}`);
  return createHash('sha256').update(share).digest().readUInt32BE() / 2 ** 32 < rate;
}
