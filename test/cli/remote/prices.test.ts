import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fixture } from '../../domain/price_import/support.js';
import { unique } from '../../support/service.js';
import { rowsOf, useCli, useDirectory } from '../support.js';

const cli = useCli();
const directory = useDirectory();

/** A new model of a new provider with a price, as provider/model. */
async function newModel(...price: string[]): Promise<string> {
  const provider = unique('local').toLowerCase();
  const url = `https://${provider.replace('_', '-')}.example.com/v1`;
  await cli.json(['providers', 'create', provider, '--dialect', 'openai-compatible', '--base-url', url]);
  await cli.json(['models', 'create', `${provider}/m`]);
  if (price.length > 0) await cli.json(['prices', 'set', `${provider}/m`, ...price]);
  return `${provider}/m`;
}

/** The text of a command that must end with 0. */
async function text(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(args);
  expect(code, stderr).toBe(0);
  return stdout;
}

async function file(name: string, content: object | string): Promise<string> {
  const path = join(directory(), name);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

const FULL = [
  ...['--input', '2', '--cached-input', '0.1', '--cache-write', '2.5', '--cache-write-long', '4', '--output', '10'],
  ...['--reasoning', '0.000001', '--tier', 'above=272k,input=4,output=15', '--tier', 'above=500,input=3'],
  ...['--window', '01:00-04:00,days=mon-wed|sat,input=0.3', '--window', '22:30-00:00,output=1'],
];

describe('agentllm prices set and list', () => {
  it('store every rate, tier and window exactly, and show them', async () => {
    const model = await newModel();
    const { price, revision } = await cli.json(['prices', 'set', model, ...FULL, '--source', 'a list']);
    expect(price.price).toMatchObject({
      input_micro_usd_per_million: 2_000_000,
      cached_input_micro_usd_per_million: 100_000,
      cache_write_micro_usd_per_million: 2_500_000,
      cache_write_long_micro_usd_per_million: 4_000_000,
      output_micro_usd_per_million: 10_000_000,
      reasoning_micro_usd_per_million: 1,
      tiers: [
        {
          above_input_tokens: 272_000,
          rates: { input_micro_usd_per_million: 4_000_000, output_micro_usd_per_million: 15_000_000 },
        },
        { above_input_tokens: 500, rates: { input_micro_usd_per_million: 3_000_000 } },
      ],
      windows: [
        { start_minute: 60, end_minute: 240, rates: { input_micro_usd_per_million: 300_000 }, weekdays: [1, 2, 3, 6] },
        { start_minute: 1350, end_minute: 1440, rates: { output_micro_usd_per_million: 1_000_000 }, weekdays: [] },
      ],
      source: 'a list',
      revision,
    });
    const [row] = rowsOf(await text('prices', 'list', model));
    expect(row).toMatchObject({
      MODEL: model,
      INPUT: '2',
      CACHED: '0.1',
      WRITE: '2.5',
      'WRITE 1H': '4',
      OUTPUT: '10',
      UNTIL: '-',
    });
    const shown = await text('models', 'get', model);
    expect(shown).toMatch(/ {2}cache write long +4\n/);
    expect(shown).toMatch(/ {2}above 272k +input 4, output 15\n/);
    expect(shown).toMatch(/ {2}mon\|tue\|wed\|sat 01:00-04:00 +input 0\.3\n/);
    expect(shown).toMatch(/ {2}22:30-24:00 +output 1\n/);
  });

  it('show the prices of a model, newest first, and the price of a day', async () => {
    const model = await newModel('--input', '1', '--valid-from', '2026-01-01');
    await text('prices', 'set', model, '--input', '2', '--valid-from', '2026-02-01T12:00:00Z');
    const rows = rowsOf(await text('prices', 'list', model));
    expect(rows.map(({ INPUT, 'VALID FROM': from, UNTIL }) => [INPUT, from, UNTIL])).toEqual([
      ['2', '2026-02-01T12:00:00Z', '-'],
      ['1', '2026-01-01T00:00:00Z', '2026-02-01T12:00:00Z'],
    ]);
    expect(rowsOf(await text('prices', 'list', model, '--at', '2026-01-31')).map(({ INPUT }) => INPUT)).toEqual(['1']);
    expect(await text('prices', 'list', model, '--at', '2025-01-31')).toContain('no price matches');
  });

  it('shows peak hours and tiers of the catalogue', async () => {
    expect(await text('prices', 'list', 'deepseek/deepseek-v4-pro')).toContain(
      'mon-fri 01:00-04:00 1.32 / 3.96; mon-fri 06:00-10:00 1.32 / 3.96',
    );
    expect(await text('prices', 'list', 'openai/gpt-6.1-sol')).toContain('above 272k 4 / 15');
  });

  it('reads a price from a file', async () => {
    const model = await newModel();
    const path = await file('price.json', {
      price: {
        input_micro_usd_per_million: 5,
        tiers: [{ above_input_tokens: 9, rates: { output_micro_usd_per_million: 6 } }],
      },
    });
    const { price } = await cli.json(['prices', 'set', model, '--from-file', path]);
    expect(price.price).toMatchObject({ input_micro_usd_per_million: 5, tiers: [{ above_input_tokens: 9 }] });
  });

  it.each([
    [['--tier', '272k,input=4'], 'must have the form above=272k,input=4,output=15'],
    [['--tier', 'above=272k'], 'must have the form above=272k,input=4,output=15'],
    [['--tier', 'above=272k,price=4'], 'the rates are input, cached-input'],
    [['--tier', 'above=272k,input=0.0000001'], 'must be an amount in USD with at most 6 decimal places'],
    [['--window', '1-4,input=4'], 'must have the form 01:00-04:00,days=mon-fri'],
    [['--window', '01:00-04:00,days=fri-mon,input=4'], 'must have the form 01:00-04:00,days=mon-fri'],
    [['--window', '25:00-26:00,input=4'], 'must be a whole number between 0 and 1439'],
    [['--output', '-1'], 'must be an amount in USD'],
    [[], 'no rate: set --input and --output'],
    [['--tier', 'above=1k,input=4'], 'must have at least one rate'],
  ])('refuses %j and says what is valid', async (args, message) => {
    const { code, stderr } = await cli(['prices', 'set', 'openai/gpt-5.1', ...args]);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe('agentllm prices diff and import', () => {
  it('find the excerpts of both catalogues unchanged', async () => {
    for (const name of ['litellm', 'models_dev'] as const) {
      const shown = await text('prices', 'diff', await file(`${name}.json`, fixture(name)));
      expect(shown).toContain('no price differs');
      expect(shown).toMatch(/^[35] models with an equal price$/m);
    }
  });

  it('show proposals with their drift and unreadable entries, and apply the accepted proposals', async () => {
    const model = await newModel('--input', '2', '--output', '10');
    const [provider = ''] = model.split('/');
    const path = await file('new.json', {
      m: { litellm_provider: provider, input_cost_per_token: 2.5e-6, output_cost_per_token_above_200k_tokens: 2e-5 },
      bad: { litellm_provider: provider, input_cost_per_token: -1 },
    });
    const shown = await text('prices', 'diff', path);
    expect(rowsOf(shown)[0]).toMatchObject({
      MODEL: model,
      IS: 'changed',
      'USD PER MILLION TOKENS': 'input 2 → 2.5; above 200k output 20',
      DRIFT: '100 %',
      APPLIED: 'no',
    });
    expect(shown).toContain('Not read:\n  bad: input_cost_per_token must not be negative: -1');
    expect(await text('prices', 'import', path)).toContain('nothing was applied; --accept provider/model');
    const dry = await text('prices', 'import', path, '--up-to-drift', '100', '--dry-run');
    expect(dry).toContain('nothing was written: 1 price would be applied');
    const done = await text('prices', 'import', path, '--accept', model, '--source', 'a file', '--as-of', '2026-11-20');
    expect(done).toMatch(/applied 1 price at revision \d+/);
    const { prices } = await cli.json(['prices', 'list', model, '--limit', '1']);
    expect(prices[0].price).toMatchObject({ input_micro_usd_per_million: 2_500_000, source: 'a file, 2026-11-20' });
    expect(await text('prices', 'diff', path)).toContain('no price differs');
  });

  it('reads standard input, and proposes new models on request', async () => {
    const model = await newModel();
    const [provider = ''] = model.split('/');
    const stdin = JSON.stringify({ [provider]: { models: { n: { cost: { input: 1 }, limit: { context: 5 } } } } });
    const run = await cli(['prices', 'import', '-', '--new-models', '--accept', `${provider}/n`], { stdin });
    expect(run.stdout).toContain('new model');
    expect((await cli.json(['models', 'get', `${provider}/n`])).model).toMatchObject({ context_window_tokens: 5 });
  });

  it('names the file or the option in errors', async () => {
    const wrong = await file('wrong.json', '{"a": 1}');
    const run = (...args: string[]) => cli(['prices', 'diff', ...args]);
    const missing = await run(join(directory(), 'none.json'));
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining('does not exist')]);
    expect((await run(wrong)).stderr).toContain('must be a file of LiteLLM or of models.dev');
    expect((await run(await file('text.json', 'x'))).stderr).toContain('must be JSON');
    expect((await run(wrong, '--format', 'litellm')).stderr).toContain('must be a file of LiteLLM');
    const accepted = await cli(['prices', 'import', wrong, '--format', 'litellm', '--accept', 'openai/none']);
    expect([accepted.code, accepted.stderr]).toEqual([2, expect.stringContaining('must be a file of LiteLLM')]);
    const path = await file('litellm2.json', fixture('litellm'));
    const unknown = await cli(['prices', 'import', path, '--accept', 'openai/none']);
    expect([unknown.code, unknown.stderr]).toEqual([
      2,
      expect.stringMatching(/--accept openai\/none +must be a model with a proposal/),
    ]);
  });
});

describe('agentllm resolve', () => {
  it('shows the price of a hop with its tiers and windows', async () => {
    await text(
      'configs',
      'upsert',
      'trader',
      '--model',
      'openai/gpt-6.1-sol',
      '--fallback',
      'deepseek/deepseek-v4-pro',
    );
    const shown = await text('resolve', 'trader');
    expect(shown).toContain('2 / 10; above 272k 4 / 15');
    expect(shown).toContain('0.66 / 1.98; mon-fri 01:00-04:00 1.32 / 3.96; mon-fri 06:00-10:00 1.32 / 3.96');
  });
});
