import { beforeAll, describe, expect, it } from 'vitest';
import type { ImportModelsRequest } from '../../../gen/ts/agentllm/v1/provider_service.js';
import { limits } from '../../../src/limits.js';
import { fixture } from '../../domain/price_import/support.js';
import { useService } from '../../support/service.js';
import { invalid, newModel, newProvider, present, revision } from './support.js';

const content = (entries: object | string) =>
  Buffer.from(typeof entries === 'string' ? entries : JSON.stringify(entries));

describe.each(['embedded', 'postgres'] as const)('ImportModels on %s', (backend) => {
  const service = useService(backend);
  let providers: ReturnType<typeof service>['providers'];
  beforeAll(() => {
    providers = service().providers;
  });

  const litellm = (file: object | string, more: Partial<ImportModelsRequest> = {}) =>
    providers.importModels({ format: 'IMPORT_FORMAT_LITELLM', content: content(file), ...more });

  /** A new provider with models at 1 USD per million input tokens. */
  async function desk(...names: string[]) {
    const provider = present(await newProvider(service())).name;
    const price = { input_micro_usd_per_million: 1_000_000n, source: 'a test' };
    for (const name of names) await newModel(service(), { provider, name, price });
    const entry = (input: unknown, more: object = {}) => ({
      litellm_provider: provider,
      mode: 'chat',
      input_cost_per_token: input,
      ...more,
    });
    const pricesOf = async (model_name: string) =>
      (await providers.listPrices({ provider, model_name })).prices.map(({ price: row }) => row);
    return { provider, entry, pricesOf };
  }

  it('finds the prices of a fresh service unchanged in the excerpts of both catalogues', async () => {
    const before = await revision(service());
    const response = await litellm(fixture('litellm'), { apply_up_to_drift_percent: 1000 });
    expect(response).toMatchObject({
      proposals: [],
      unchanged_count: 5,
      skipped: [],
      applied_count: 0,
      revision: before,
    });
    const dev = await providers.importModels({
      format: 'IMPORT_FORMAT_MODELS_DEV',
      content: content(fixture('models_dev')),
    });
    expect(dev).toMatchObject({ proposals: [], unchanged_count: 3, skipped: [] });
    expect(await revision(service())).toBe(before);
  });

  it('proposes without applying, applies accepted proposals, and proposes them no more', async () => {
    const { provider, entry, pricesOf } = await desk('a', 'b', 'c');
    const file = { a: entry(1.25e-6), [`${provider}/b`]: entry(2e-6), c: entry(1e-6), unknown: entry(1e-6) };
    const before = await revision(service());
    const proposed = await litellm(file);
    expect(
      proposed.proposals.map(({ model_name, kind, drift_percent, applied }) => [
        model_name,
        kind,
        drift_percent,
        applied,
      ]),
    ).toEqual([
      ['a', 'PROPOSAL_KIND_CHANGED', 25, false],
      ['b', 'PROPOSAL_KIND_CHANGED', 100, false],
    ]);
    expect(proposed).toMatchObject({ proposal_count: 2, applied_count: 0, unchanged_count: 1, revision: before });
    const as_of = new Date('2026-11-20');
    const applied = await litellm(file, {
      accept: [`${provider.toUpperCase()}/a`],
      source: 'a file',
      as_of,
      reason: 'r',
    });
    expect(applied).toMatchObject({ applied_count: 1, revision: before + 1n });
    const [newest, oldest] = await pricesOf('a');
    expect(newest).toMatchObject({
      input_micro_usd_per_million: 1_250_000n,
      source: 'a file, 2026-11-20',
      revision: before + 1n,
    });
    expect(oldest).toMatchObject({ input_micro_usd_per_million: 1_000_000n, source: 'a test' });
    expect(applied.proposals[0]).toMatchObject({ applied: true, proposed: newest, current: oldest });
    expect(await pricesOf('b')).toHaveLength(1);
    expect((await litellm(file)).proposals.map(({ model_name }) => model_name)).toEqual(['b']);
  });

  it('applies every proposal up to the stated drift, in one revision', async () => {
    const { provider, entry, pricesOf } = await desk('a', 'b', 'c', 'd');
    const file = { a: entry(1.1e-6), b: entry(0.9e-6), c: entry(1.100001e-6), d: entry(0) };
    const request = { apply_up_to_drift_percent: 10, providers: [provider] };
    const before = await revision(service());
    const dry = await litellm(file, { ...request, validate_only: true });
    expect(dry).toMatchObject({ proposal_count: 4, applied_count: 2, revision: before });
    expect(await revision(service())).toBe(before);
    const response = await litellm(file, request);
    expect(
      response.proposals.map(({ model_name, drift_percent, applied }) => [model_name, drift_percent, applied]),
    ).toEqual([
      ['a', 10, true],
      ['b', 10, true],
      ['c', 11, false],
      ['d', undefined, false],
    ]);
    expect(response.revision).toBe(before + 1n);
    expect(await pricesOf('a')).toHaveLength(2);
    expect(await pricesOf('c')).toHaveLength(1);
  });

  it('creates accepted new models with their facts', async () => {
    const { provider, entry, pricesOf } = await desk();
    const file = { n: entry(1e-6, { max_input_tokens: 9, supports_vision: true, deprecation_date: '2030-01-31' }) };
    expect((await litellm(file)).proposals).toEqual([]);
    const { proposals } = await litellm(file, {
      new_models: true,
      accept: [`${provider}/n`],
      as_of: new Date('2026-11-20'),
    });
    expect(proposals[0]).toMatchObject({ kind: 'PROPOSAL_KIND_NEW_MODEL', applied: true, current: undefined });
    const { model } = await providers.getModel({ provider, name: 'n' });
    expect(model).toMatchObject({
      context_window_tokens: 9,
      supports_vision: true,
      supports_functions: undefined,
      retires_at: new Date('2030-01-31'),
      as_of: new Date('2026-11-20'),
      built_in: false,
      price: { input_micro_usd_per_million: 1_000_000n },
    });
    expect(await pricesOf('n')).toHaveLength(1);
  });

  it('applies a repeated request once', async () => {
    const { provider, entry, pricesOf } = await desk('a');
    const request = { accept: [`${provider}/a`], request_id: '1b5d7bd0-6c6b-4a53-9d0c-0d7d2d4b8f11' };
    const first = await litellm({ a: entry(2e-6) }, request);
    expect(await litellm({ a: entry(2e-6) }, request)).toEqual(first);
    expect(await pricesOf('a')).toHaveLength(2);
  });

  it('reports unreadable entries, and reads all other entries', async () => {
    const { provider, entry } = await desk('a', 'b', 'c', 'd', 'e');
    const deep = `${'['.repeat(5000)}${']'.repeat(5000)}`;
    const text = JSON.stringify({
      a: entry('1e-6'),
      b: entry(-1),
      c: entry(1e-6, { x: 'DEEP' }),
      d: entry(3e-6),
      e: entry(1e-6),
    })
      .replace('"DEEP"', deep)
      .replace(/}$/, `,"e":${JSON.stringify(entry(2e-6))}}`);
    const response = await litellm(text);
    expect(response.proposals.map(({ model_name }) => model_name)).toEqual(['d']);
    expect(response).toMatchObject({ unchanged_count: 1, proposal_count: 1 });
    expect(response.skipped).toEqual([
      'a: input_cost_per_token must be a number',
      'b: input_cost_per_token must not be negative: -1',
      'e: the entry occurs twice',
    ]);
    expect(provider).not.toBe('');
  });

  it('lists at most 50 entries that it cannot read', async () => {
    const { entry } = await desk();
    const file = Object.fromEntries(Array.from({ length: 60 }, (_, at) => [`m${at}`, entry('x')]));
    expect((await litellm(file)).skipped).toHaveLength(limits.importSkipped);
  });

  it('lists at most 1000 proposals, the applied ones first', async () => {
    const { provider, entry } = await desk();
    const file = Object.fromEntries(Array.from({ length: 1100 }, (_, at) => [`m${1000 + at}`, entry(1e-6)]));
    const accept = [`${provider}/m2099`];
    const response = await litellm(file, { new_models: true, accept, validate_only: true });
    expect(response).toMatchObject({ proposal_count: 1100, applied_count: 1 });
    expect(response.proposals).toHaveLength(limits.importProposals);
    expect(response.proposals[0]).toMatchObject({ model_name: 'm2099', applied: true });
  });

  it.each([
    ['', 'is required'],
    ['{', 'must be JSON; it ends too early'],
    ['[]', 'must be a file of LiteLLM: a model with `litellm_provider`'],
    [fixture('models_dev'), 'must be a file of LiteLLM: a model with `litellm_provider`'],
    [Buffer.from([0xff, 0xfe, 0x00]), 'must be JSON in UTF-8'],
    [`[${'1,'.repeat(limits.importValues)}1]`, 'must have at most 500000 values'],
    [
      ' '.repeat(limits.importBytes + 1),
      `must have at most ${limits.importBytes} bytes, not ${limits.importBytes + 1}`,
    ],
    [
      `{${Array.from({ length: limits.importEntries + 1 }, (_, at) => `"${at}":{"litellm_provider":"openai"}`).join()}}`,
      `must have at most ${limits.importEntries} models of known providers`,
    ],
  ])('refuses content that is not a catalogue (%#)', async (text, description) => {
    const error = await invalid(
      providers.importModels({ format: 'IMPORT_FORMAT_LITELLM', content: Buffer.from(text as string) }),
      'content',
    );
    expect(error.violations[0]?.description).toBe(description);
  });

  it('reports all problems of a request at once', async () => {
    const before = await revision(service());
    await invalid(
      providers.importModels({
        format: 'IMPORT_FORMAT_UNSPECIFIED',
        source: 'x'.repeat(limits.importSource + 1),
        as_of: new Date(Date.UTC(1900, 0)),
        providers: ['openai', 'nobody'],
        apply_up_to_drift_percent: 1001,
        request_id: 'x',
      }),
      'format',
      'source',
      'as_of',
      'providers[1]',
      'apply_up_to_drift_percent',
      'request_id',
    );
    const { provider, entry } = await desk('a');
    const error = await invalid(
      litellm({ a: entry(1e-6) }, { accept: [`${provider}/a`, 'x', 'openai/none'] }),
      'accept[0]',
      'accept[1]',
      'accept[2]',
    );
    expect(error.violations[0]?.description).toContain('must be a model with a proposal');
    expect(await revision(service())).toBe(before + 2n);
  });
});
