import { describe, expect, it } from 'vitest';
import { parseFault, splitModel } from '../../../src/fake_provider/faults/fault.js';
import { faultCatalogue } from '../../../src/fake_provider/faults/fault_catalogue.js';

describe('parseFault', () => {
  it.each(faultCatalogue.map(({ name }) => name))('reads %s without options', (name) => {
    expect(parseFault(name).definition.name).toBe(name);
  });

  it('reads options, and applies the defaults of the others', () => {
    expect(parseFault('stall, after=7, keep_alive_ms=50').options).toEqual({ after: 7, keep_alive_ms: 50 });
    expect(parseFault('cut-stream').options).toEqual({ after: 40 });
    expect(parseFault('rate-limit,retry_after=1.5,times=2').options).toEqual({
      retry_after: 1.5,
      times: 2,
      body: 'code',
    });
  });

  it.each([
    ['', 'there is no fault ""'],
    ['rate_limit', 'there is no fault "rate_limit"; agentllm fake-provider --list-faults shows the faults'],
    ['rate-limit,after=2', 'rate-limit has no option "after"; it has status, retry_after'],
    ['rate-limit,nonsense', 'rate-limit has no option "nonsense"'],
    ['rate-limit,constructor=1', 'has no option "constructor"'],
    ['rate-limit,retry_after=soon', 'retry_after must be a number from 0 to 86400, not "soon"'],
    ['rate-limit,retry_after=-1', 'retry_after must be a number'],
    ['rate-limit,status=200', 'status must be a number from 400 to 599'],
    ['rate-limit,body=xml', 'body must be one of code, text, object, not "xml"'],
    ['unsupported-parameter,param=a b', 'param must be a word'],
    [`rate-limit,${'x'.repeat(600)}`, 'a fault has at most 500 characters'],
  ])('rejects %j', (text, message) => {
    expect(() => parseFault(text)).toThrow(message);
  });
});

describe('splitModel', () => {
  it.each([
    ['gpt-4o', 'gpt-4o', undefined],
    ['gpt-4o@fault=rate-limit,times=1', 'gpt-4o', 'rate-limit,times=1'],
    ['claude-3@20240229', 'claude-3@20240229', undefined],
    ['@fault=', '', ''],
  ])('splits %s', (name, model, fault) => {
    expect(splitModel(name)).toEqual(fault === undefined ? { model } : { model, fault });
  });
});
