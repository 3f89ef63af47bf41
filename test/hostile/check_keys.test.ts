import { afterEach, describe, expect, it } from 'vitest';
import { generateKey } from '../../src/domain/fernet.js';
import { newConfig, newProvider, present } from '../api/handlers/support.js';
import { withLimits } from '../feed/support.js';
import { type FakeProvider, KEY, KINDS, startFakeProvider } from '../providers/fake_provider.js';
import { fakeResolver } from '../providers/fake_resolver.js';
import {
  checked,
  configAt,
  ENCRYPTION_KEY,
  ending,
  environment,
  OWN_KEY,
  provide,
  short,
  validated,
} from '../support/checked_provider.js';
import { failure, startService, type TestService, unique, useService } from '../support/service.js';

const receivedBy = (fake: FakeProvider) => JSON.stringify(fake.seen.map(({ headers, path }) => [headers, path]));

describe('an API key in a check', () => {
  const service = useService('embedded', { ...environment, OPENAI_API_KEY: 'sk-CANARY-openai', YOURS_API_KEY: KEY });

  it('of a config is sent only to its provider, while a fallback uses the environment or no key', async () => {
    const [own, elsewhere, third] = [
      await startFakeProvider('openai'),
      await startFakeProvider('openai'),
      await startFakeProvider('claude'),
    ];
    const provider = await provide(service(), own);
    for (const [fake, vars, source, status] of [
      [elsewhere, ['YOURS_API_KEY'], 'KEY_SOURCE_ENVIRONMENT', 'OK'],
      [elsewhere, ['NOBODYS_API_KEY'], 'KEY_SOURCE_NONE', 'NO_KEY'],
      [third, ['MINE_API_KEY'], 'KEY_SOURCE_ENVIRONMENT', 'MODEL_MISSING'],
      [third, [], 'KEY_SOURCE_NONE', /NO_KEY|INVALID/],
    ] as const) {
      const fallback_provider = await provide(service(), fake, [...vars]);
      const fallback = { fallback_provider, fallback_model: 'gpt-4o' };
      const { id } = await newConfig(service(), { provider, model_name: 'gpt-4o', ...fallback });
      await service().configs.updateConfig({ config: { id }, api_key: OWN_KEY });
      const { hops } = await checked(service(), id);
      expect(hops[1]).toMatchObject({ key_source: source });
      expect(short(present(hops[1]).status)).toMatch(status);
    }
    expect(receivedBy(own)).toContain(OWN_KEY);
    expect(receivedBy(elsewhere)).not.toContain('CANARY');
    expect(receivedBy(third)).not.toContain('CANARY');
  });

  it('of a config is not sent to another provider with the same origin', async () => {
    const fake = await startFakeProvider('openai');
    const [provider, other] = [await provide(service(), fake, []), await provide(service(), fake, [])];
    const { id } = await newConfig(service(), {
      provider,
      model_name: 'gpt-4o',
      fallback_provider: other,
      fallback_model: 'gpt-4o',
    });
    await service().configs.updateConfig({ config: { id }, api_key: KEY });
    const { hops } = await checked(service(), id);
    expect(hops.map((hop) => hop.key_source)).toEqual(['KEY_SOURCE_CONFIG', 'KEY_SOURCE_NONE']);
    expect(short(present(hops[1]).status)).not.toBe('OK');
  });

  it('of a credential is sent only to the hops of its provider', async () => {
    const [own, elsewhere] = [await startFakeProvider('openai'), await startFakeProvider('openai')];
    const [provider, other] = [await provide(service(), own, []), await provide(service(), elsewhere, [])];
    const name = unique('desk');
    await service().credentials.createCredential({ credential: { name, provider }, api_key: OWN_KEY });
    const { id } = await newConfig(service(), {
      provider,
      model_name: 'gpt-4o',
      credential_name: name,
      fallback_provider: other,
      fallback_model: 'gpt-4o',
    });
    const { hops } = await checked(service(), id);
    expect(hops.map((hop) => [hop.key_source, hop.key_name])).toEqual([
      ['KEY_SOURCE_CREDENTIAL', name],
      ['KEY_SOURCE_NONE', ''],
    ]);
    expect(receivedBy(elsewhere)).not.toContain('CANARY');
    const foreign = service().configs.createConfig({
      agent: { name: (await newConfig(service())).agent_name },
      config: { provider: other, model_name: 'gpt-4o', credential_name: name },
    });
    expect((await failure(foreign)).reason).toBe('KEY_PROVIDER_MISMATCH');
    // A new key of the credential applies to all its configs.
    await service().credentials.updateCredential({ credential: { name }, api_key: KEY });
    expect(short((await checked(service(), id)).status)).toBe('OK');
  });

  it('is sent once for two hops with the same provider and key, with a result for each model', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const { id } = await newConfig(service(), {
      provider,
      model_name: 'gpt-none',
      fallback_provider: provider,
      fallback_model: 'gpt-4o',
    });
    const { hops, status } = await checked(service(), id);
    expect(hops.map((hop) => short(hop.status))).toEqual(['MODEL_MISSING', 'OK']);
    expect(status).toBe('CHECK_STATUS_MODEL_MISSING');
    expect(fake.paths().filter((path) => path === 'GET /v1/models')).toHaveLength(1);
  });

  it('is not read from forbidden variables: a custom provider that names one is rejected', async () => {
    const fake = await startFakeProvider('openai');
    for (const variable of ['OPENAI_API_KEY', 'ANTHROPIC_API_KEY', 'XAI_API_KEY', 'GROK_API_KEY', 'DEEPSEEK_API_KEY'])
      expect(await ending(provide(service(), fake, [variable]))).toBe('3 INVALID_FIELDS');
    for (const variable of ['openai_api_key', 'PATH', 'DATABASE_URL', 'ENCRYPTION_KEY', 'MINE_API_KEY\n', 'X_API_KEY '])
      expect([variable, await ending(provide(service(), fake, [variable]))]).toEqual([variable, '3 INVALID_FIELDS']);
    expect(fake.seen).toEqual([]);
  });

  it('of the environment is read from the first set variable of the provider, which key_name names', async () => {
    const fake = await startFakeProvider('openai');
    for (const [vars, name] of [
      [['YOURS_API_KEY', 'MINE_API_KEY'], 'YOURS_API_KEY'],
      [['MINE_API_KEY', 'YOURS_API_KEY'], 'MINE_API_KEY'],
      [['NOT_SET_API_KEY', 'YOURS_API_KEY'], 'YOURS_API_KEY'],
    ] as const) {
      const { id } = await configAt(service(), await provide(service(), fake, [...vars]));
      expect((await checked(service(), id)).hops[0]).toMatchObject({
        key_source: 'KEY_SOURCE_ENVIRONMENT',
        key_name: name,
      });
    }
  });

  it('of ValidateApiKey is sent only in headers to the base URL, with or without a trailing slash', async () => {
    for (const kind of KINDS) {
      const fake = await startFakeProvider(kind);
      const provider = await provide(service(), fake);
      expect(short((await validated(service(), provider, KEY)).status)).toBe('OK');
      const slash = await provide(service(), {
        provider: { ...fake.provider, base_url: `${fake.provider.base_url}/` },
      });
      expect(short((await validated(service(), slash, KEY)).status)).toBe('OK');
      for (const { method, headers, path } of fake.seen) {
        expect(method).toBe('GET');
        expect(path).not.toContain(KEY);
        expect(headers['host']).toBe(`127.0.0.1:${fake.port}`);
        expect(headers['content-length'] ?? '0').toBe('0');
        expect(headers['cookie']).toBeUndefined();
      }
    }
  });

  it('is not sent to the target of a redirect', async () => {
    const target = await startFakeProvider('openai');
    for (const code of [301, 302, 303, 307, 308]) {
      const fake = await startFakeProvider('openai');
      fake.on('*', (_, response) => response.writeHead(code, { location: target.provider.base_url }).end());
      const provider = await provide(service(), fake);
      expect(short((await validated(service(), provider, OWN_KEY)).status)).toBe('PROVIDER_ERROR');
      expect(fake.seen).toHaveLength(1);
    }
    expect(target.seen).toEqual([]);
  });

  it('is not sent to a proxy that the environment configures', async () => {
    const [proxy, fake] = [await startFakeProvider('openai'), await startFakeProvider('openai')];
    const names = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'ALL_PROXY', 'NODE_USE_ENV_PROXY'];
    const before = names.map((name) => process.env[name]);
    for (const name of names) process.env[name] = name.startsWith('NODE') ? '1' : `http://127.0.0.1:${proxy.port}`;
    try {
      expect(short((await validated(service(), await provide(service(), fake), KEY)).status)).toBe('OK');
    } finally {
      names.forEach((name, i) => {
        const value = before[i];
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      });
    }
    expect(proxy.seen).toEqual([]);
  });
});

describe('the address policy', () => {
  const services: TestService[] = [];
  afterEach(async () => {
    await Promise.all(services.splice(0).map((service) => service.stop()));
  });
  async function started(env: Record<string, string>): Promise<TestService> {
    const service = await startService({ HTTP_ADDRESS: 'off', ...env });
    services.push(service);
    return service;
  }
  const { PROVIDER_ALLOW_CIDRS: _, ...withoutAllowedCidrs } = environment;

  it('rejects a name that resolves to a non-public address, in every notation', async () => {
    const service = await started(withoutAllowedCidrs);
    const table = {
      'loop.example.com': ['127.0.0.1'],
      'loop6.example.com': ['::1'],
      'mapped.example.com': ['::ffff:127.0.0.1'],
      'mapped-hex.example.com': ['::ffff:7f00:1'],
      'metadata.example.com': ['169.254.169.254'],
      'ten.example.com': ['10.0.0.1'],
      'cgnat.example.com': ['100.64.0.1'],
      'zero.example.com': ['0.0.0.0'],
      'zero6.example.com': ['::'],
      'ula.example.com': ['fd00::1'],
      'link6.example.com': ['fe80::1'],
      'nat64.example.com': ['64:ff9b::7f00:1'],
      'multicast.example.com': ['224.0.0.1'],
      'broadcast.example.com': ['255.255.255.255'],
      'six-to-four.example.com': ['2002:7f00:1::1'],
      'compatible.example.com': ['::127.0.0.1'],
      'site6.example.com': ['fec0::1'],
    };
    const resolver = fakeResolver(table);
    try {
      const found: Record<string, string> = {};
      for (const name of Object.keys(table)) {
        const { name: provider } = await newProvider(service, { base_url: `https://${name}/v1` });
        const { check } = await service.providers.validateApiKey({ provider, api_key: OWN_KEY });
        found[name] = short(present(check).status);
        expect(present(check).message).not.toMatch(/CANARY/);
      }
      expect(found).toEqual(Object.fromEntries(Object.keys(table).map((name) => [name, 'ADDRESS_REFUSED'])));
    } finally {
      resolver.restore();
    }
  });

  it('rejects the private address of a name that has a public and a private address', async () => {
    withLimits({ providerCheckMs: 2_000 });
    const service = await started(withoutAllowedCidrs);
    const fake = await startFakeProvider('openai');
    const resolver = fakeResolver({
      'both.example.com': ['192.0.2.1', '127.0.0.1'],
      'htob.example.com': ['127.0.0.1', '192.0.2.1'],
    });
    try {
      for (const name of ['both', 'htob']) {
        const { name: provider } = await newProvider(service, {
          base_url: `https://${name}.example.com:${fake.port}/v1`,
        });
        const { check } = await service.providers.validateApiKey({ provider, api_key: OWN_KEY });
        expect(short(present(check).status)).toMatch(/ADDRESS_REFUSED|UNREACHABLE/);
      }
    } finally {
      resolver.restore();
    }
    expect(fake.seen).toEqual([]);
  });

  it('rejects or does not connect to a base URL with a disguised address', async () => {
    const service = await started(withoutAllowedCidrs);
    const fake = await startFakeProvider('openai');
    for (const host of [
      '127.0.0.1',
      '2130706433',
      '0x7f000001',
      '0177.0.0.1',
      '127.1',
      '[::1]',
      '[::ffff:127.0.0.1]',
      'localhost',
      'LOCALHOST.',
      '0',
      '①②⑦.0.0.1',
      '127。0。0。1',
      'foo.localhost',
    ]) {
      const created = await service.providers
        .createProvider({
          provider: { name: unique('mine'), dialect: 'DIALECT_OPENAI', base_url: `https://${host}:${fake.port}/v1` },
        })
        .then(({ provider }) => present(provider).name)
        .catch((error: { code: number }) => error.code);
      if (typeof created === 'number') {
        expect([host, created]).toEqual([host, 3]);
        continue;
      }
      const { check } = await service.providers.validateApiKey({ provider: created, api_key: OWN_KEY });
      expect([host, short(present(check).status)]).toEqual([
        host,
        expect.stringMatching(/ADDRESS_REFUSED|UNREACHABLE/),
      ]);
    }
    expect(fake.seen).toEqual([]);
  });

  it('allows exactly the addresses in PROVIDER_ALLOW_CIDRS', async () => {
    const fake = await startFakeProvider('openai');
    for (const [cidrs, expected] of [
      ['127.0.0.1/32', true],
      ['127.0.0.0/31', true],
      ['127.0.0.2/31', false],
      ['10.0.0.0/8', false],
      ['0.0.0.0/0', true],
      ['::/0', undefined],
      ['10.0.0.0/8, 127.0.0.1/32', true],
      ['::ffff:127.0.0.0/104', undefined],
    ] as const) {
      const service = await started({ ...environment, PROVIDER_ALLOW_CIDRS: cidrs }).catch(() => undefined);
      if (!service) {
        expect(expected).toBeUndefined();
        continue;
      }
      const created = await ending(provide(service, fake));
      if (expected !== undefined) expect([cidrs, created]).toEqual([cidrs, expected ? 'OK' : '3 INVALID_FIELDS']);
      // A name that resolves to the address is treated like the address.
      const resolver = fakeResolver({ 'near.example.com': ['127.0.0.1'] });
      try {
        const { name } = await newProvider(service, { base_url: `https://near.example.com:${fake.port}/v1` });
        const { status } = await validated(service, name, OWN_KEY);
        if (expected !== undefined)
          expect([cidrs, short(status)]).toEqual([cidrs, expected ? 'UNREACHABLE' : 'ADDRESS_REFUSED']);
      } finally {
        resolver.restore();
      }
      await services.pop()?.stop();
    }
    expect(receivedBy(fake)).not.toContain('CANARY');
  });

  it.each(['127.0.0.0/33', '127.0.0.0', 'localhost/8', '/8', '127.0.0.0/-1', '127.0.0.0/8/8', 'any', '::1/129'])(
    'rejects PROVIDER_ALLOW_CIDRS=%s at the start, or allows only that address',
    async (cidrs) => {
      const outcome = await started({ ...environment, PROVIDER_ALLOW_CIDRS: cidrs }).catch((error: Error) => error);
      if (outcome instanceof Error) return expect(outcome.message).toContain('PROVIDER_ALLOW_CIDRS');
      expect(cidrs).toBe('127.0.0.0');
      const fake = await startFakeProvider('openai');
      expect(await ending(provide(outcome, fake))).toBe('3 INVALID_FIELDS');
    },
  );

  it('allows a check with a stored key when ENCRYPTION_KEY lists the old key after the new one', async () => {
    const service = await started({ ...environment, ENCRYPTION_KEY: `${generateKey()},${ENCRYPTION_KEY}` });
    const { id } = await configAt(service, await provide(service, await startFakeProvider('openai')), 'gpt-4o', KEY);
    expect(short((await checked(service, id)).status)).toBe('OK');
  });
});
