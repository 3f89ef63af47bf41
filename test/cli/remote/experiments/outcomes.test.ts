import { describe, expect, it } from 'vitest';
import { outcomeValue } from '../../../../src/cli/remote/experiments/outcomes.js';

describe('an outcome', () => {
  it.each([
    ['hit=true', { name: 'hit', boolean: true }],
    ['hit=false', { name: 'hit', boolean: false }],
    ['return=-0.031', { name: 'return', number: -0.031 }],
    ['a b=1e3', { name: 'a b', number: 1000 }],
  ])('is read from %s', (typed, expected) => {
    expect(outcomeValue.read(typed)).toEqual(expected);
  });

  it.each([
    ['hit', /must have the form NAME=VALUE/],
    ['=1', /must have the form/],
    ['hit=yes', /must be a number/],
    ['hit=NaN', /must be a number/],
  ])('is not read from %s', (typed, message) => {
    expect(() => outcomeValue.read(typed)).toThrow(message);
  });
});
