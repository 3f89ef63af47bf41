import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../../src/fake_provider/clock.js';
import { fingerprintOf } from '../../src/fake_provider/credential.js';
import type { FakeProvider } from '../../src/fake_provider/fake_provider.js';
import { matchesPattern } from '../../src/fake_provider/requests/model_rules.js';
import { Rules } from '../../src/fake_provider/rules.js';
import { readScript, type ScriptInput } from '../../src/fake_provider/script.js';
import { limits } from '../../src/limits.js';
import { BODIES, fakeProvider, get, post } from './support.js';

/** The statuses of some requests, one after the other. */
async function statuses(fake: FakeProvider, count: number, body: object = {}, headers = {}): Promise<number[]> {
  const found: number[] = [];
  for (let at = 0; at < count; at++)
    found.push(
      (await post(`${fake.baseUrl('openai')}/chat/completions`, { ...BODIES.chat_completions, ...body }, headers))
        .status,
    );
  return found;
}
const withRule = (match: object, fault = 'overloaded'): Promise<FakeProvider> =>
  fakeProvider({ script: { rules: [{ match, fault }] }, clock: new VirtualClock() });

describe('matchesPattern', () => {
  it.each([
    ['gpt-4o', 'gpt-4o', true],
    ['gpt-4o', 'gpt-4o-mini', false],
    ['gpt-*', 'gpt-4o-mini', true],
    ['*mini', 'gpt-4o-mini', true],
    ['g*-*i', 'gpt-4o-mini', true],
    ['*', '', true],
    ['a*a', 'a', false],
    ['a*b*c', 'acb', false],
    ['/openai/*/completions', '/openai/v1/chat/completions', true],
    ['a.c', 'abc', false],
  ])('%s and %s: %s', (pattern, text, expected) => expect(matchesPattern(pattern, text)).toBe(expected));
});

describe('a rule', () => {
  it.each<[string, object, object, boolean]>([
    ['the model', { model: 'gpt-4o' }, {}, true],
    ['another model', { model: 'gpt-5*' }, {}, false],
    ['the provider', { provider: 'openai' }, {}, true],
    ['another provider', { provider: 'xai' }, {}, false],
    ['the API', { api: 'chat_completions' }, {}, true],
    ['another API', { api: 'messages' }, {}, false],
    ['the path', { path: '/openai/*' }, {}, true],
    ['another path', { path: '/openai' }, {}, false],
    ['a key', { key: 'sk-of-a-test' }, {}, true],
    ['the fingerprint of a key', { key: fingerprintOf('sk-of-a-test') }, {}, true],
    ['another key', { key: 'sk-of-another-test' }, {}, false],
    ['a stream', { stream: true }, { stream: true }, true],
    ['no stream', { stream: true }, {}, false],
    [
      'a part of the prompt',
      { prompt: 'the "bull"\ncase' },
      { messages: [{ role: 'user', content: 'Argue the "bull"\ncase.' }] },
      true,
    ],
    ['another prompt', { prompt: 'bear' }, {}, false],
    ['several conditions', { model: 'gpt-4o', stream: false, provider: 'openai' }, {}, true],
    ['nothing', {}, {}, true],
  ])('matches by %s', async (_, match, body, matches) => {
    const fake = await withRule(match);
    expect(await statuses(fake, 1, body, { authorization: 'Bearer sk-of-a-test' })).toEqual([matches ? 503 : 200]);
  });

  it.each<[number | string, number[]]>([
    [1, [503, 200, 200, 200]],
    ['2', [200, 503, 200, 200]],
    ['2-3', [200, 503, 503, 200]],
    ['3-', [200, 200, 503, 503]],
    ['-2', [503, 503, 200, 200]],
  ])('applies to attempt %s', async (attempt, expected) => {
    expect(await statuses(await withRule({ attempt }), 4)).toEqual(expected);
  });

  it('counts only the requests that match its other conditions', async () => {
    const fake = await withRule({ attempt: 2, model: 'gpt-4o' });
    expect(await statuses(fake, 2, { model: 'gpt-4o-mini' })).toEqual([200, 200]);
    expect(await statuses(fake, 2)).toEqual([200, 503]);
  });

  it('applies during a time', async () => {
    const clock = new VirtualClock();
    const rules = [{ match: { after_ms: 1000, before_ms: 3000 }, fault: 'overloaded' }];
    const fake = await fakeProvider({ clock, script: { rules } });
    const found: number[] = [];
    for (const ms of [0, 999, 1, 1999, 1]) {
      clock.advance(ms);
      found.push(...(await statuses(fake, 1)));
    }
    expect(found).toEqual([200, 200, 503, 503, 200]);
  });

  it('does not apply when an earlier one does', async () => {
    const rules = [
      { match: { attempt: '1' }, fault: 'rate-limit' },
      { match: { attempt: '-2' }, fault: 'server-error' },
    ];
    expect(await statuses(await fakeProvider({ script: { rules } }), 3)).toEqual([429, 500, 200]);
  });

  it('can state a response', async () => {
    const script: ScriptInput = {
      response: { text: 'default', model: 'stated' },
      rules: [{ match: { prompt: 'bull' }, response: { text: 'Buy.' } }],
    };
    const fake = await fakeProvider({ script });
    const send = async (content: string) =>
      (await post(`${fake.url}/v1/chat/completions`, { model: 'm', messages: [{ role: 'user', content }] })).json;
    expect([(await send('bull')).choices[0].message.content, (await send('bull')).model]).toEqual(['Buy.', 'stated']);
    expect((await send('bear')).choices[0].message.content).toBe('default');
  });

  it('applies to model lists too', async () => {
    const fake = await withRule({ api: 'models' }, 'permission');
    expect((await get(`${fake.baseUrl('openai')}/models`)).status).toBe(403);
    expect(await statuses(fake, 1)).toEqual([200]);
  });
});

describe('the options of every fault', () => {
  it.each<[string, number[]]>([
    ['overloaded,times=2', [503, 503, 200, 200]],
    ['overloaded,skip=1', [200, 503, 503, 503]],
    ['overloaded,skip=1,times=1', [200, 503, 200, 200]],
  ])('limit %s in a rule, a header and a model name', async (fault, expected) => {
    expect(await statuses(await withRule({}, fault), 4)).toEqual(expected);
    const fake = await fakeProvider();
    expect(await statuses(fake, 4, {}, { 'x-fake-fault': fault })).toEqual(expected);
    expect(await statuses(fake, 4, { model: `gpt-4o@fault=${fault}` })).toEqual(expected);
  });

  it('limit a fault to a time after the first request', async () => {
    const clock = new VirtualClock();
    const fake = await fakeProvider({ clock });
    const found: number[] = [];
    for (const ms of [500, 59_999, 1]) {
      clock.advance(ms);
      found.push(...(await statuses(fake, 1, { model: 'gpt-4o@fault=overloaded,for_ms=60000' })));
    }
    expect(found).toEqual([503, 503, 200]);
  });

  it('count the requests of each key separately', async () => {
    const fake = await fakeProvider();
    const send = (key: string) => statuses(fake, 2, {}, { 'x-fake-fault': 'overloaded,times=1', 'x-api-key': key });
    expect([await send('sk-of-the-first'), await send('sk-of-the-second')]).toEqual([
      [503, 200],
      [503, 200],
    ]);
  });
});

describe('a fault', () => {
  it('in the header has precedence over that of the model, and that over the rules', async () => {
    const fake = await withRule({}, 'overloaded');
    const model = 'gpt-4o@fault=server-error';
    expect(await statuses(fake, 1, { model }, { 'x-fake-fault': 'rate-limit' })).toEqual([429]);
    expect(await statuses(fake, 1, { model })).toEqual([500]);
    expect(await statuses(fake, 1)).toEqual([503]);
    expect(await statuses(fake, 1, { model }, { 'x-fake-fault': 'none' })).toEqual([200]);
  });

  it('in the name of a model is not a part of that name', async () => {
    const fake = await fakeProvider();
    const { json } = await post(`${fake.url}/v1/chat/completions`, {
      ...BODIES.chat_completions,
      model: 'gpt-4o@fault=slow-tokens,delay_ms=0',
    });
    expect(json.model).toBe('gpt-4o');
    expect(fake.requests[0]).toMatchObject({
      model: 'gpt-4o@fault=slow-tokens,delay_ms=0',
      fault: 'slow-tokens,delay_ms=0',
    });
  });

  it('in the name of a model does not affect a check of the model', async () => {
    const fake = await fakeProvider();
    const { status, json } = await get(`${fake.url}/v1/models/gpt-4o%40fault%3Doverloaded`);
    expect([status, json.id]).toEqual([200, 'gpt-4o']);
  });

  it('that does not exist is an error that says so', async () => {
    const fake = await fakeProvider();
    for (const [body, headers] of [
      [{ model: 'gpt-4o@fault=rate-limt' }, {}],
      [{}, { 'x-fake-fault': 'rate-limt' }],
    ]) {
      const { status, json } = await post(
        `${fake.url}/v1/chat/completions`,
        { ...BODIES.chat_completions, ...body },
        headers as Record<string, string>,
      );
      expect([status, json.error.message]).toEqual([
        400,
        'fake provider: there is no fault "rate-limt"; agentllm fake-provider --list-faults shows the faults',
      ]);
    }
  });

  it('of many clients is counted in bounded memory', () => {
    const rules = new Rules(readScript({}), new VirtualClock());
    const isFaulty = (fingerprint: string) => {
      const facts = { provider: 'openai', endpoint: 'models', path: '/', model: '', stream: false, body: {} } as const;
      return rules.select({ ...facts, fingerprint }, { header: 'overloaded,times=1', model: '' }).fault !== undefined;
    };
    expect([isFaulty('the first'), isFaulty('the first')]).toEqual([true, false]);
    for (let client = 1; client < limits.fakeProvider.countedClients; client++) isFaulty(`client ${client}`);
    expect(isFaulty('the first')).toBe(false);
    isFaulty('one more');
    expect(isFaulty('the first')).toBe(true);
  });
});
