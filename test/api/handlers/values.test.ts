import { describe, expect, it } from 'vitest';
import { withLimits } from '../../feed/support.js';
import { failure, unique, useService } from '../../support/service.js';
import {
  type ConfigFields,
  chars,
  GPT4,
  getAgent,
  getConfig,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  notFound,
  present,
  status,
} from './support.js';

const INJECTIONS = [
  `'; DROP TABLE agent_llm_configs; --`,
  `' OR '1'='1`,
  `" OR ""="`,
  `'); DELETE FROM agent_configs; --`,
  `1; SELECT pg_sleep(10)`,
  `$1 $2 ?? :name ?`,
  '\\',
  `\\'; --`,
  '%',
  '_',
  '100%_\\%',
  `$$; DROP TABLE x; $$`,
  '/* comment */ -- x',
  '{{7*7}} <script>alert(1)</script>',
  '%s%n%x',
];

/** Texts that every free-text field stores unchanged. Names reject some of them (`false`) on both engines. */
const TEXTS: readonly [string, string, boolean][] = [
  ['U+FFFD', 'a\uFFFDb', true],
  ['a BOM within', 'a\uFEFFb', true],
  ['right-to-left marks', 'abc\u202Exyz\u200F\u05D0', true],
  ['four-byte characters', '🎈𝒳👩‍👩‍👧', true],
  ['control characters', 'a\u0001\u001F\u007Fb', false],
  ['line ends', 'a\r\nb\tc', false],
  ['spaces at its end', 'a  ', false],
  ['an NFC name', 'caf\u00e9', true],
  ['an NFD name', 'cafe\u0301', true],
  ['__proto__', '__proto__', true],
  ['constructor', 'constructor', true],
  ['a non-character', 'a\uFFFE\uFFFFb', true],
];

describe.each(['embedded', 'postgres'] as const)('values on %s', (backend) => {
  const service = useService(backend);
  const create = async (config: ConfigFields) => {
    const { id } = await newAgent(service());
    return service().configs.createConfig({ agent: { id }, config });
  };

  describe('SQL in strings', () => {
    it.each(INJECTIONS)('is stored verbatim in every string of an agent: %s', async (text) => {
      const json = JSON.stringify({ [text]: text });
      const list = JSON.stringify([text]);
      const fields = {
        name: `${unique('sql')}${text}`,
        agent_type: text,
        role: text,
        prompt_template: text,
        capabilities_json: list,
        required_tools_json: list,
        memory_name: text,
        slot_name: text,
        config_json: json,
        version: text.slice(0, 20),
        description: text,
        metadata_json: json,
      };
      const { agent } = await service().agents.createAgent({ agent: fields, reason: text });
      expect(agent).toMatchObject(fields);
      expect(await getAgent(service(), present(agent).id)).toMatchObject(fields);
      const { agents } = await service().agents.listAgents({ agent_type: text, role: text });
      expect(agents.map(({ id }) => id)).toEqual([present(agent).id]);
      const { agent: named } = await service().agents.getAgent({ agent: { name: fields.name } });
      expect(named).toEqual(agent);
      const { agent: updated } = await service().agents.updateAgent({
        agent: { id: present(agent).id, description: `${text}${text}` },
      });
      expect(updated?.description).toBe(`${text}${text}`);
      await service().agents.deleteAgent({ agent: { name: fields.name }, reason: text });
    });

    it.each(INJECTIONS)('is stored verbatim in every string of a config, a model and a provider: %s', async (text) => {
      const { name: provider } = await newProvider(service(), { display_name: text });
      const model = await newModel(service(), {
        provider,
        name: `${text}${unique('m')}`,
        display_name: text,
        replaced_by: text,
      });
      expect(model).toMatchObject({ display_name: text, replaced_by: text });
      const fields = {
        provider,
        model_name: model.name,
        fallback_provider: provider,
        fallback_model: text,
        metadata_json: JSON.stringify({ [text]: text }),
        extra_params: { stop_sequences: [text] },
      };
      const config = await newConfig(service(), fields);
      expect(await getConfig(service(), config.id)).toMatchObject(fields);
      const { configs } = await service().configs.listConfigs({ model_name: model.name, provider });
      expect(configs.map(({ id }) => id)).toEqual([config.id]);
      const { model: read } = await service().providers.getModel({ provider, name: model.name });
      expect(read).toEqual(model);
    });

    it('is stored verbatim in the source of a price', async () => {
      const source = INJECTIONS.join(' ').slice(0, 200);
      const price = { input_micro_usd_per_million: 1n, source };
      const { provider, name } = await newModel(service(), { provider: 'openai', price });
      const { model } = await service().providers.getModel({ provider, name });
      expect(model?.price).toMatchObject(price);
    });

    it('is not used as a pattern and not executed', async () => {
      for (const text of INJECTIONS) {
        await notFound(service().agents.getAgent({ agent: { name: text } }), 'AGENT_NOT_FOUND');
        const { agents } = await service().agents.listAgents({ agent_type: `${text}${unique('none')}` });
        expect(agents).toEqual([]);
      }
      const { config } = await service().configs.getPrimaryConfig({ agent: { name: 'trader' } });
      expect(config).toMatchObject(GPT4);
    });
  });

  describe('text', () => {
    it.each(TEXTS)('with %s is stored unchanged', async (_, text, inNames) => {
      const free = { description: text, prompt_template: text, slot_name: text };
      const agent = await newAgent(service(), free);
      expect(await getAgent(service(), agent.id)).toMatchObject(free);
      const metadata_json = JSON.stringify({ [text]: [text] });
      const config = await newConfig(service(), { metadata_json });
      expect((await getConfig(service(), config.id)).metadata_json).toBe(metadata_json);

      const name = `${unique('text')}${text}`;
      const call = service().agents.createAgent({ agent: { name, agent_type: 'x' } });
      if (!inNames) {
        await invalid(call, 'agent.name');
        return;
      }
      const { agent: named } = await call;
      expect(named).toMatchObject({ name: name.normalize('NFC') });
      expect((await service().agents.getAgent({ agent: { name } })).agent).toEqual(named);
    });

    it('in NFC and NFD is the same name', async () => {
      const prefix = unique('norm');
      const nfc = await newAgent(service(), { name: `${prefix}\u00e9` });
      const again = service().agents.createAgent({ agent: { name: `${prefix}e\u0301`, agent_type: 'x' } });
      expect(await failure(again)).toMatchObject({ reason: 'AGENT_NAME_TAKEN' });
      expect((await service().agents.getAgent({ agent: { name: `${prefix}e\u0301` } })).agent?.id).toBe(nfc.id);
    });

    it.each([
      'name',
      'agent_type',
      'role',
      'prompt_template',
      'memory_name',
      'slot_name',
      'version',
      'description',
      'llm_model',
    ] as const)('with NUL is rejected in %s of an agent', async (field) => {
      const agent = { name: unique('nul'), agent_type: 'x', [field]: 'a\0b' };
      await invalid(service().agents.createAgent({ agent }), `agent.${field}`);
    });

    it('with NUL is rejected in every other string with a violation of its field', async () => {
      const { id } = await newAgent(service());
      const { name: provider } = await newProvider(service());
      const nul = 'a\0b';
      await invalid(create({ provider, model_name: nul }), 'config.model_name');
      await invalid(create({ provider: nul, model_name: 'm' }), 'config.provider');
      await invalid(create({ ...GPT4, fallback_provider: provider, fallback_model: nul }), 'config.fallback_model');
      const stop = await invalid(create({ ...GPT4, extra_params: { stop_sequences: [nul] } }));
      expect(stop.fields[0]).toMatch(/^config\.extra_params\.stop_sequences/);
      await invalid(service().configs.createConfig({ agent: { id }, config: GPT4, reason: nul }), 'reason');
      const agent = await invalid(service().agents.getAgent({ agent: { name: nul } }));
      expect(agent.fields[0]).toMatch(/^agent/);
      await invalid(
        service().providers.updateProvider({ provider: { name: provider, display_name: nul } }),
        'provider.display_name',
      );
      await invalid(service().providers.createModel({ model: { provider, name: nul } }), 'model.name');
      await invalid(
        service().providers.createModel({ model: { provider, name: 'n', display_name: nul } }),
        'model.display_name',
      );
      await invalid(
        service().providers.createModel({ model: { provider, name: 'n', price: { source: nul } } }),
        'model.price.source',
      );
    });

    const lengths = [
      ['slot_name', 50, 'x'],
      ['slot_name', 50, '🎈'],
      ['slot_name', 50, 'e\u0301'],
      ['memory_name', 100, 'x'],
      ['memory_name', 100, '🎈'],
      ['agent_type', 50, '𝒳'],
      ['name', 255, '🎈'],
      ['description', 1000, '🎈'],
    ] as const;
    it.each(lengths)('in %s is limited to %i code points: %s', async (field, limit, character) => {
      const prefix = [...unique('')].join('');
      const longest = [...`${prefix}${chars(limit, character)}`].slice(0, limit).join('');
      const agent = await newAgent(service(), { [field]: longest });
      expect((await getAgent(service(), agent.id))[field]).toBe(longest);
      const call = service().agents.createAgent({
        agent: { name: unique('long'), agent_type: 'x', [field]: `${longest}y` },
      });
      await invalid(call, `agent.${field}`);
    });
  });

  describe('a number', () => {
    const temperatures: readonly [number, boolean][] = [
      [Number.NaN, false],
      [Number.POSITIVE_INFINITY, false],
      [Number.NEGATIVE_INFINITY, false],
      [-0, true],
      [Number.MIN_VALUE, true],
      [0, true],
      [1e-7, true],
      [0.1 + 0.2, true],
      [2, true],
      [2.000_000_1, false],
      [2 + Number.EPSILON * 2, false],
      [-Number.MIN_VALUE, false],
      [Number.MAX_VALUE, false],
    ];
    it.each(temperatures)('is accepted as temperature %d: %s', async (temperature, accepted) => {
      if (!accepted) {
        await invalid(create({ ...GPT4, temperature }), 'config.temperature');
        return;
      }
      const { config } = await create({ ...GPT4, temperature });
      const read = await getConfig(service(), present(config).id);
      expect(read.temperature === temperature, `${read.temperature}`).toBe(true);
      expect(read).toEqual(config);
    });

    const topPs: readonly [number, boolean][] = [
      [Number.NaN, false],
      [Number.POSITIVE_INFINITY, false],
      [-0, true],
      [0, true],
      [1, true],
      [1 + Number.EPSILON, false],
      [-1e-300, false],
    ];
    it.each(topPs)('is accepted as top_p %d: %s', async (top_p, accepted) => {
      if (accepted) expect((await create({ ...GPT4, top_p })).config?.top_p === top_p).toBe(true);
      else await invalid(create({ ...GPT4, top_p }), 'config.top_p');
    });

    const costs: readonly [number, boolean][] = [
      [Number.NaN, false],
      [Number.NEGATIVE_INFINITY, false],
      [Number.MIN_VALUE, true],
      [0.000_000_123_456_789, true],
      [1e6, true],
      [1e6 + 1e-9 * 1e6, false],
    ];
    it.each(costs)('is accepted as a cost of %d: %s', async (cost_per_1k_input_tokens, accepted) => {
      if (!accepted) {
        await invalid(create({ ...GPT4, cost_per_1k_input_tokens }), 'config.cost_per_1k_input_tokens');
        return;
      }
      const { config } = await create({ ...GPT4, cost_per_1k_input_tokens });
      const read = await getConfig(service(), present(config).id);
      expect(read.cost_per_1k_input_tokens).toBe(cost_per_1k_input_tokens);
    });

    it('is sent as 0 when it is -0', async () => {
      const { config } = await create({ ...GPT4, temperature: -0 });
      const { hops } = await service().configs.validateConfig({ id: present(config).id });
      expect(hops[0]?.parameters.find(({ name }) => name === 'temperature')?.value_json).toBe('0');
    });
  });

  describe('an integer', () => {
    it.each([0, -1, -2_147_483_648, 2_147_483_647])(
      'results in NOT_FOUND or INVALID_ARGUMENT from every method as id %i',
      async (id) => {
        const { agents, configs } = service();
        const calls = [
          () => agents.getAgent({ agent: { id } }),
          () => agents.updateAgent({ agent: { id, role: 'x' } }),
          () => agents.deleteAgent({ agent: { id } }),
          () => configs.getConfig({ id }),
          () => configs.updateConfig({ config: { id, temperature: 1 } }),
          () => configs.deleteConfig({ id }),
          () => configs.createConfig({ agent: { id }, config: GPT4 }),
          () => configs.listConfigs({ agent: { id } }),
          () => configs.getPrimaryConfig({ agent: { id } }),
          () => configs.upsertPrimaryConfig({ agent: { id }, config: GPT4 }),
          () => configs.bulkAssignConfig({ agents: [{ id }], config: GPT4 }),
          () => configs.reorderConfigs({ agent: { id } }),
          () => configs.validateConfig({ id }),
          () => configs.validateConfig({ agent: { id } }),
          () =>
            configs.validateConfig({ config: { id, temperature: 1 }, agent: id > 0 ? undefined : { name: 'nobody' } }),
        ];
        const codes = await Promise.all(
          calls.map((call) =>
            call().then(
              () => 'OK',
              (error) => error.code as number,
            ),
          ),
        );
        for (const [i, code] of codes.entries()) {
          expect([status.NOT_FOUND, status.INVALID_ARGUMENT], `call ${i}`).toContain(code);
        }
      },
    );

    it.each([-1n, -(2n ** 63n)])('is accepted or rejected without a wait as min_revision %s', async (min_revision) => {
      const code = await service()
        .configs.getConfig({ id: 1, min_revision })
        .then(
          () => status.OK,
          (error) => error.code as number,
        );
      expect([status.OK, status.INVALID_ARGUMENT]).toContain(code);
    });

    it.each([2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n])(
      'results in UNAVAILABLE as min_revision %s',
      async (min_revision) => {
        withLimits({ maxCallMs: 500 });
        const call = service().agents.listAgents({ min_revision });
        const code = await call.then(
          () => 'OK',
          (error) => error.code as number,
        );
        expect(code).toBe(status.UNAVAILABLE);
      },
    );

    const seeds: readonly [bigint, boolean][] = [
      [2n ** 53n - 1n, true],
      [2n ** 53n, false],
      [2n ** 63n - 1n, false],
      [-(2n ** 63n), false],
      [0n, true],
    ];
    it.each(seeds)('is accepted as seed %s: %s', async (seed, accepted) => {
      if (accepted) expect((await create({ ...GPT4, extra_params: { seed } })).config?.extra_params?.seed).toBe(seed);
      else await invalid(create({ ...GPT4, extra_params: { seed } }), 'config.extra_params.seed');
    });
  });

  describe('metadata_json', () => {
    const nested = (depth: number) => `${'{"a":'.repeat(depth - 1)}{}${'}'.repeat(depth - 1)}`;
    const arrays = (depth: number) => `{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`;
    const sized = (bytes: number) => `{"k":"${chars(bytes - 8)}"}`;
    const wide = (bytes: number) => `{"k":"${'é'.repeat((bytes - 8) / 2)}"}`;
    const table: readonly [string, string, boolean][] = [
      ['16384 bytes', sized(16_384), true],
      ['16385 bytes', sized(16_385), false],
      ['16384 bytes in fewer characters', wide(16_384), true],
      ['16386 bytes in fewer characters', wide(16_386), false],
      ['depth 32', nested(32), true],
      ['depth 33', nested(33), false],
      ['depth 32 of arrays', arrays(32), true],
      ['depth 33 of arrays', arrays(33), false],
      ['depth 8000', arrays(8000), false],
      ['depth 10000', `${'['.repeat(10_000)}`, false],
      ['brackets in strings', `{"a":"${'['.repeat(100)}"}`, true],
      ['duplicate keys', '{"a":1,"a":2}', false],
      ['an escaped NUL', '{"a":"\\u0000"}', false],
      ['an escaped NUL in a key', '{"\\u0000":1}', false],
      ['an escaped lone surrogate', '{"a":"\\ud800"}', false],
      ['a raw NUL', '{"a":"\0"}', false],
      ['an array', '[]', false],
      ['a string', '"a"', false],
      ['a number', '1', false],
      ['null', 'null', false],
      ['an empty string', '', false],
      ['only spaces', '   ', false],
      ['two objects', '{}{}', false],
      ['a trailing comma', '{"a":1,}', false],
      ['single quotes', "{'a':1}", false],
      ['NaN', '{"a":NaN}', false],
      ['an unfinished object', '{"a":', false],
      ['a comment', '{} // x', false],
      ['__proto__', '{"__proto__":{"polluted":true},"constructor":{"prototype":{"x":1}}}', true],
      ['a huge number', '{"a":1e400,"b":12345678901234567890123}', true],
      ['odd spacing', ' {\n\t"b" :1 , "a":2 } ', true],
    ];
    it.each(table)('is stored unchanged or rejected with %s', async (_, metadata_json, accepted) => {
      if (!accepted) {
        await invalid(create({ ...GPT4, metadata_json }), 'config.metadata_json');
        return;
      }
      const { config } = await create({ ...GPT4, metadata_json });
      expect((await getConfig(service(), present(config).id)).metadata_json).toBe(metadata_json);
      expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
      const { config: updated } = await service().configs.updateConfig({
        config: { id: present(config).id, temperature: 1 },
      });
      expect(updated?.metadata_json).toBe(metadata_json);
    });
  });

  describe('an error message', () => {
    const hostileTexts = [
      'line\r\nbreak',
      'tab\tbell\u0007',
      '%s %d %n %',
      '\u202Ertl',
      '🎈',
      '\uFFFD',
      '"quoted" \\',
      '\u2028',
      'é',
    ];
    it.each(hostileTexts)('contains no control characters and no internals for the input %j', async (text) => {
      const { agents, configs, providers } = service();
      const errors = [
        await notFound(agents.getAgent({ agent: { name: text } }), 'AGENT_NOT_FOUND'),
        await notFound(providers.getModel({ provider: 'openai', name: text }), 'MODEL_NOT_FOUND'),
        await invalid(create({ provider: text, model_name: text })),
        await invalid(create({ provider: 'openai', model_name: text })),
        await invalid(configs.updateConfig({ config: { id: 1 }, update_mask: [text] })),
        await invalid(create({ ...GPT4, metadata_json: text })),
      ];
      for (const { message, violations } of errors) {
        for (const line of [message, ...violations.map((violation) => violation.description)]) {
          expect(line).not.toBe('');
          expect(line).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
          expect(line).not.toMatch(/select |insert |update "|postgres|SQLSTATE|at .*\.ts:/i);
        }
      }
      await newAgent(service());
    });

    it('is limited to 4 KiB for long input', async () => {
      const text = chars(2000, '🎈');
      const errors = [
        await invalid(create({ provider: text, model_name: text, fallback_provider: text, fallback_model: text })),
        await invalid(service().configs.updateConfig({ config: { id: 1 }, update_mask: Array(100).fill(text) })),
        await invalid(service().agents.getAgent({ agent: { name: text } })),
      ];
      for (const error of errors) {
        expect(Buffer.byteLength(error.message)).toBeLessThanOrEqual(4096);
        expect(Buffer.byteLength(JSON.stringify(error.violations))).toBeLessThanOrEqual(4096);
        expect(error.message).not.toMatch(/\p{Surrogate}|\uFFFD/u);
      }
    });
  });
});
