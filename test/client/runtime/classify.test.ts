import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { WireApi } from '../../../gen/ts/agentllm/v1/provider.js';
import { errorClassFromJSON } from '../../../gen/ts/agentllm/v1/receipt.js';
import { classify } from '../../../src/client/runtime/classify.js';
import { errorOfBody } from '../../../src/client/runtime/error_body.js';
import { ruleOfClass } from '../../../src/client/runtime/error_class.js';
import { packageFile } from '../../../src/package.js';

interface Example {
  readonly status: number;
  readonly body: unknown;
  readonly wire_api?: string;
  readonly parameter?: string;
}
interface Rule {
  readonly class: string;
  readonly wire_api?: readonly string[];
  readonly message?: string;
  readonly seen: string;
  readonly source: string;
  readonly examples: readonly Example[];
}
const { rules, classes } = JSON.parse(readFileSync(packageFile('conformance/error_rules.json'), 'utf8')) as {
  readonly rules: readonly Rule[];
  readonly classes: readonly { readonly class: string }[];
};

const classified = ({ status, body, wire_api = 'CHAT_COMPLETIONS' }: Example) =>
  classify({ status, wireApi: `WIRE_API_${wire_api}` as WireApi, error: errorOfBody(body) });

const withDefaults = (rule: Rule, example: Example): Example => ({
  ...example,
  wire_api: example.wire_api ?? rule.wire_api?.[0] ?? 'CHAT_COMPLETIONS',
});

describe('conformance/error_rules.json', () => {
  const examples = rules.flatMap((rule, index) =>
    rule.examples.map((example) => [`${index} ${rule.class} ${example.status}`, rule, example] as const),
  );

  it.each(examples)('classifies the example of rule %s', (_, rule, example) => {
    const result = classified(withDefaults(rule, example));
    expect(result.errorClass).toBe(`ERROR_CLASS_${rule.class}`);
    expect(result.parameter).toBe(example.parameter);
  });

  it('has the date, the source and an example of each rule', () => {
    for (const { seen, source, examples: own } of rules) {
      expect(seen).toMatch(/^20\d\d-\d\d-\d\d$/);
      expect(source).not.toBe('');
      expect(own.length).toBeGreaterThan(0);
    }
  });

  it('needs each rule: its examples get another class, or another parameter, without it', () => {
    // A rule that an earlier one makes superfluous would never be noticed.
    const anchored = rules.filter(({ message }) => message !== undefined);
    expect(anchored.every(({ message }) => message?.startsWith('^'))).toBe(true);
    const unmatched = anchored.filter((rule) =>
      rule.examples.every((example) => {
        const input = withDefaults(rule, example);
        const { error, ...facts } = { ...input, error: errorOfBody(input.body) };
        const without = classify({
          wireApi: `WIRE_API_${facts.wire_api}` as WireApi,
          status: facts.status,
          error: { ...error, message: undefined },
        });
        return without.errorClass === `ERROR_CLASS_${rule.class}`;
      }),
    );
    expect(unmatched.map(({ message }) => message)).toEqual([]);
  });

  it('has exactly the classes of the contract, each with an action and a breaker', () => {
    const names = classes.map((one) => `ERROR_CLASS_${one.class}`);
    expect(new Set(names).size).toBe(15);
    for (const name of names) {
      expect(errorClassFromJSON(name)).toBe(name);
      expect(ruleOfClass(errorClassFromJSON(name))).toMatchObject({ action: expect.any(String) });
    }
  });
});

describe('classify', () => {
  it('takes an unknown 400 for a bad request and an unknown 429 for a rate limit', () => {
    expect(classified({ status: 400, body: { error: { message: 'surprise' } } }).errorClass).toBe(
      'ERROR_CLASS_INVALID_REQUEST',
    );
    expect(classified({ status: 429, body: '' }).errorClass).toBe('ERROR_CLASS_RATE_LIMIT');
  });

  it('does not read a class from numbers or words within a message', () => {
    const body = { error: { message: 'The 500 tokens of your timeout exceed the rate limit of insufficient_quota' } };
    expect(classified({ status: 400, body }).errorClass).toBe('ERROR_CLASS_INVALID_REQUEST');
    expect(classified({ status: 429, body: { error: { message: 'INSUFFICIENT QUOTA' } } }).errorClass).toBe(
      'ERROR_CLASS_RATE_LIMIT',
    );
  });

  it("recognizes xAI's used-up credits at any host, and takes other 403s for a missing permission", () => {
    expect(classified({ status: 403, body: { error: 'You have run out of credits' } }).errorClass).toBe(
      'ERROR_CLASS_QUOTA',
    );
    expect(classified({ status: 403, body: { error: 'Your credits are not for this model' } }).errorClass).toBe(
      'ERROR_CLASS_PERMISSION',
    );
  });

  it('uses the status that an error within a response of status 200 states', () => {
    expect(classified({ status: 200, body: { error: { code: 429, message: 'slow' } } }).errorClass).toBe(
      'ERROR_CLASS_RATE_LIMIT',
    );
    expect(classified({ status: 200, body: { error: { message: 'unknown' } } }).errorClass).toBe('ERROR_CLASS_SERVER');
  });

  it('takes any other status for a fault of the server', () => {
    expect(classified({ status: 599, body: '' }).errorClass).toBe('ERROR_CLASS_SERVER');
    expect(classified({ status: 418, body: '' }).errorClass).toBe('ERROR_CLASS_INVALID_REQUEST');
  });
});
