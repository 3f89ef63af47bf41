import { describe, expect, it } from 'vitest';
import { parseScript, readScript, ScriptError } from '../../src/fake_provider/script.js';

const problemsOf = (value: unknown): readonly string[] => {
  try {
    readScript(value);
    return [];
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    return error.problems;
  }
};

describe('readScript', () => {
  it('reads an empty script', () => {
    expect(readScript({})).toEqual({ rules: [], response: {}, models: [] });
  });

  it.each<[unknown, string]>([
    [null, 'the script: Invalid input: expected object, received null'],
    [{ rule: [] }, 'the script: Unrecognized key: "rule"'],
    [{ rules: [{}] }, 'rules[0]: must have a fault or a response'],
    [{ rules: [{ match: { modell: 'a' }, fault: 'reset' }] }, 'rules[0].match: Unrecognized key: "modell"'],
    [{ rules: [{ fault: 'rest' }] }, 'rules[0].fault: there is no fault "rest"'],
    [{ rules: [{ match: { attempt: '3-2' }, fault: 'reset' }] }, 'rules[0].match.attempt: must be a range'],
    [{ rules: [{ match: { attempt: 0 }, fault: 'reset' }] }, 'rules[0].match.attempt:'],
    [{ rules: [{ match: { attempt: 'x' }, fault: 'reset' }] }, 'rules[0].match.attempt: must be a number or a range'],
    [{ rules: [{ match: { provider: 'mistral' }, fault: 'reset' }] }, 'rules[0].match.provider: Invalid option'],
    [{ response: { usage: { input_tokens: -1 } } }, 'response.usage.input_tokens: Too small'],
    [{ response: { finish: 'done' } }, 'response.finish: Invalid option'],
    [{ models: [{ rejects: ['a'] }] }, 'models[0].match: Invalid input'],
    [{ rules: Array.from({ length: 1001 }, () => ({ fault: 'reset' })) }, 'rules: Too big'],
  ])('rejects %j', (value, problem) => {
    expect(problemsOf(value)[0]).toContain(problem);
  });

  it('lists at most twenty problems', () => {
    const problems = problemsOf({ rules: Array.from({ length: 100 }, () => ({})) });
    expect([problems.length, problems.at(-1)]).toEqual([21, 'and 80 more']);
  });
});

describe('parseScript', () => {
  it('rejects a text that is not JSON without repeating it', () => {
    expect(() => parseScript('{"keys": ["sk-secret"')).toThrow(/^the script: is not valid JSON$/);
  });
});
