import { describe, expect, it } from 'vitest';
import { newModel } from '../../src/domain/catalogue.js';
import { hopsOfConfig } from '../../src/domain/chain.js';
import {
  isShutDown,
  isShutDownWithin,
  nextTextChange,
  replaceCommand,
  replaceInAll,
  shutdownText,
} from '../../src/domain/shutdown.js';
import { agentRow, configRow, NOW } from './support.js';

const DAY = 86_400_000;
const at = (ms: number) => new Date(NOW.getTime() + ms);

describe('shutdownText', () => {
  it.each([
    [0, 'was shut down on 2026-08-01'],
    [-1, 'was shut down on 2026-07-31'],
    [1, 'will be shut down on 2026-08-01, in 1 day'],
    [DAY, 'will be shut down on 2026-08-02, in 1 day'],
    [DAY + 1, 'will be shut down on 2026-08-02, in 2 days'],
    [46 * DAY, 'will be shut down on 2026-09-16, in 46 days'],
  ])('of a date %d ms ahead is: %s', (ms, expected) => {
    expect(shutdownText(at(ms), NOW)).toBe(expected);
  });

  it.each([1, DAY - 1, DAY, DAY + 1, 3.5 * DAY, 10 * DAY])('changes next at nextTextChange, %d ms ahead', (ms) => {
    const change = nextTextChange(at(ms), NOW);
    const textAt = (time: number) => shutdownText(at(ms), new Date(time));
    expect(change.getTime()).toBeGreaterThan(NOW.getTime());
    // The text is the same until the change, and another one just after it.
    expect(textAt(change.getTime() - 1)).toBe(textAt(NOW.getTime() + (ms % DAY === 0 ? 1 : 0)));
    expect(textAt(change.getTime() + 1)).not.toBe(textAt(change.getTime() - 1));
  });
});

describe('isShutDown', () => {
  const model = (retires_at: Date | null) => ({ ...newModel(), retires_at });

  it('is true from the shutdown date on, and false for a model without one', () => {
    expect([at(1), at(0), at(-1), null].map((date) => isShutDown(model(date), NOW))).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  it('is true within some days up to the last millisecond', () => {
    const dates = [at(-1), at(2 * DAY), at(2 * DAY + 1), null];
    expect(dates.map((date) => isShutDownWithin(model(date), 2, NOW))).toEqual([true, true, false, false]);
  });
});

describe('the command that replaces a model', () => {
  const fallback = { fallback_provider: 'openai', fallback_model: 'gpt-4o' };

  it.each([
    ['a config', hopsOfConfig(configRow({ id: 7 }))[0], 'agentllm configs update 7 --model openai/new'],
    [
      'a fallback',
      hopsOfConfig(configRow({ id: 7, ...fallback }))[1],
      'agentllm configs update 7 --fallback openai/new',
    ],
  ])('names %s', (_, hop, expected) => {
    expect(hop && replaceCommand(agentRow(), hop, 'openai/new')).toBe(expected);
  });

  it.each([
    ['trader', 'trader'],
    ['Trader_1.b-c', 'Trader_1.b-c'],
    ['42', 'name:42'],
    ['-rf', 'name:-rf'],
    ['name:x', 'name:name:x'],
    ['two words', "'two words'"],
    ["it's; rm", "'it'\\''s; rm'"],
    ['über', "'name:über'"],
  ])('names the agent %s as %s', (name, word) => {
    expect(replaceInAll([agentRow({ id: 9, name })], 'p/m')).toBe(`agentllm configs bulk ${word} --model p/m`);
  });

  it('quotes a model whose name the shell would change', () => {
    expect(replaceInAll('all', "p/it's a $model")).toBe(`agentllm configs bulk --all --model 'p/it'\\''s a $model'`);
  });

  it('is absent for a proposed config', () => {
    const [hop] = hopsOfConfig(configRow({ id: 0 }));
    expect(hop && replaceCommand(agentRow(), hop, 'openai/new')).toBeUndefined();
  });
});
