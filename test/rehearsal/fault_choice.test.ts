import { describe, expect, it } from 'vitest';
import { faultCatalogue } from '../../src/fake_provider/faults/fault_catalogue.js';
import { classOf, faultAt, faultProblem, faultsFor, rehearsableFaults } from '../../src/rehearsal/fault_choice.js';
import { chainAgent } from '../client/runtime/support.js';
import { firstHop, twoHops } from './support.js';

const OTHER_CALLS = ['prefill-rejected', 'truncated-arguments', 'key-blocked', 'key-disabled', 'team-blocked'];

describe('rehearsableFaults', () => {
  it('contains every fault that a call without tools and prefill can meet', () => {
    const others = faultCatalogue.map(({ name }) => name).filter((name) => !rehearsableFaults.includes(name));
    expect(others).toEqual(OTHER_CALLS);
  });
});

describe('faultsFor', () => {
  it('contains one fault of each class', () => {
    const faults = faultsFor(firstHop(twoHops()), false);
    const classes = faults.map(classOf);
    expect(new Set(classes).size).toBe(faults.length);
    expect(classes).not.toContain(undefined);
  });

  it('contains all faults of the provider of the hop, and none of another one', () => {
    const faults = faultsFor(firstHop(twoHops()), true);
    expect(faults).toEqual(expect.arrayContaining(['credit-exhausted', 'refusal', 'slow-tokens']));
    expect(faults).not.toContain('credit-balance');
    expect(faults).not.toContain('unprocessable');
  });
});

describe('faultProblem', () => {
  it.each([
    ['nonsense', 'there is no fault "nonsense"'],
    ['rate-limit,after=1', 'rate-limit has no option "after"'],
    ['key-blocked', 'does not affect the calls of a rehearsal'],
  ])('of %s states the reason', (fault, problem) => {
    expect(faultProblem(fault)).toContain(problem);
  });

  it('is undefined for a fault with options', () => {
    expect(faultProblem('rate-limit,times=2')).toBeUndefined();
  });
});

describe('faultAt', () => {
  it('names the first parameter that the hop sends, unless the fault names one', () => {
    const hop = firstHop(twoHops());
    expect(faultAt(hop, 'unsupported-parameter,times=1')).toBe('unsupported-parameter,times=1,param=temperature');
    expect(faultAt(hop, 'unsupported-parameter,param=seed')).toBe('unsupported-parameter,param=seed');
    expect(faultAt(hop, 'quota')).toBe('quota');
  });

  it('is unchanged for a hop without parameters', () => {
    const hop = firstHop(chainAgent({ url: 'http://127.0.0.1:9/v1' }).resolve());
    expect(faultAt(hop, 'unsupported-parameter')).toBe('unsupported-parameter');
  });
});
