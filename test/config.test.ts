import { describe, expect, it } from 'vitest';
import { type Address, isLoopback, readSettings, SettingsError, settings } from '../src/config.js';

/** The problems that readSettings reports for an environment, one per line of its error. */
function problems(env: NodeJS.ProcessEnv): readonly string[] {
  try {
    readSettings(env);
  } catch (error) {
    expect(error).toBeInstanceOf(SettingsError);
    expect((error as SettingsError).message.split('\n')).toEqual((error as SettingsError).problems);
    return (error as SettingsError).problems;
  }
  return [];
}

describe('readSettings', () => {
  const { PROVIDER_ALLOW_CIDRS, ...plain } = readSettings({});

  it('returns a default for every setting when the environment is empty', () => {
    expect(plain).toEqual({
      GRPC_ADDRESS: { host: '127.0.0.1', port: 50051, text: '127.0.0.1:50051' },
      HTTP_ADDRESS: { host: '127.0.0.1', port: 8081, text: '127.0.0.1:8081' },
      TLS_CERT_FILE: undefined,
      TLS_KEY_FILE: undefined,
      TLS_CLIENT_CA_FILE: undefined,
      TLS_CLIENT_CERT: 'required',
      DATABASE_URL: undefined,
      DATABASE_DIRECT_URL: undefined,
      DATABASE_POOL_SIZE: 10,
      DATABASE_WAIT_MS: 5000,
      DATA_DIR: './data',
      ENCRYPTION_KEY: '',
      BOOTSTRAP_TOKEN_FILE: undefined,
      MIGRATE_ON_START: true,
      SEED_MODEL: undefined,
      POLL_INTERVAL_MS: 100,
      NOTIFY: true,
      REFLECTION: 'on',
      WATCH_RETENTION: 86_400_000,
      HISTORY_RETENTION: Number.POSITIVE_INFINITY,
      USAGE_RETENTION: 365 * 86_400_000,
      SHUTDOWN_GRACE_MS: 10_000,
      LOG_LEVEL: 'info',
      PROVIDER_ALLOW_KEY_VARS: [],
      OPENAI_API_KEY: undefined,
      ANTHROPIC_API_KEY: undefined,
      DEEPSEEK_API_KEY: undefined,
      GROK_API_KEY: undefined,
      XAI_API_KEY: undefined,
      providerKeys: new Map(),
    });
    for (const address of ['127.0.0.1', '10.0.0.1', '8.8.8.8'])
      expect(PROVIDER_ALLOW_CIDRS.check(address), address).toBe(false);
    expect(Object.isFrozen(readSettings({}))).toBe(true);
  });

  it('documents each default with a value that reads as the default', () => {
    const notValues = ['embedded', 'DATABASE_URL', 'none'];
    for (const [name, { defaultText, description }] of Object.entries(settings)) {
      expect(description, name).toMatch(/\S/);
      if (notValues.includes(defaultText)) continue;
      expect(readSettings({ [name]: defaultText })[name as keyof typeof plain], name).toEqual(
        plain[name as keyof typeof plain],
      );
    }
  });

  it('treats an empty value as not set', () => {
    const empty = Object.fromEntries(Object.keys(settings).map((name) => [name, '']));
    expect({ ...readSettings(empty), PROVIDER_ALLOW_CIDRS: undefined }).toEqual({
      ...plain,
      PROVIDER_ALLOW_CIDRS: undefined,
    });
  });

  it('ignores unknown variables', () => expect(problems({ PATH: '/bin', GRPC_ADRESS: 'x' })).toEqual([]));

  it('reports every mistake, each on a separate line', () => {
    const wrong = Object.fromEntries(Object.keys(settings).map((name) => [name, 'wrong value']));
    delete wrong['DATA_DIR'];
    // Any text may be the path of a file; test/net/tls_files.test.ts tests invalid files.
    for (const name of Object.keys(wrong)) if (name.endsWith('_FILE')) delete wrong[name];
    // An invalid encryption key affects only requests that need keys; test/api/handlers/config_keys.test.ts tests it.
    delete wrong['ENCRYPTION_KEY'];
    // A provider's key is not validated here: it is used when a config is checked.
    for (const name of Object.keys(wrong)) if (name.endsWith('_API_KEY')) delete wrong[name];
    const lines = problems(wrong);
    expect(lines.map((line) => line.split(' ')[0])).toEqual(Object.keys(wrong));
    for (const line of lines) expect(line).toMatch(/^[A-Z_]+ must be .+/);
  });

  it('reads only the provider keys that may be sent to a provider', () => {
    const env = { OPENAI_API_KEY: 'sk-1', XAI_API_KEY: '', MINE_API_KEY: 'sk-2', OTHER_API_KEY: 'sk-3' };
    expect([...readSettings(env).providerKeys]).toEqual([['OPENAI_API_KEY', 'sk-1']]);
    const allowed = { ...env, PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY, GONE_API_KEY' };
    expect([...readSettings(allowed).providerKeys.keys()]).toEqual(['OPENAI_API_KEY', 'MINE_API_KEY']);
    expect(problems({ PROVIDER_ALLOW_KEY_VARS: 'PATH' })).toEqual([
      'PROVIDER_ALLOW_KEY_VARS must be names such as MY_LLM_API_KEY,OTHER_API_KEY',
    ]);
  });

  it.each(['openai/gpt-5.4', 'together/meta-llama/Llama-3-70b'])('accepts the model %s', (text) => {
    expect(readSettings({ SEED_MODEL: ` ${text}\n` }).SEED_MODEL).toBe(text);
  });

  it.each(['gpt-4', '/gpt-4', 'openai/', 'open ai/gpt-4', 'openai/ '])('rejects the model %s', (text) => {
    expect(problems({ SEED_MODEL: text })).toEqual(['SEED_MODEL must be provider/model, for example openai/gpt-5.4']);
  });

  it.each([
    ['127.0.0.1:50051', '127.0.0.1', 50051],
    ['0.0.0.0:1', '0.0.0.0', 1],
    ['[::1]:0', '::1', 0],
    ['[::]:65535', '::', 65535],
    ['localhost:8080', 'localhost', 8080],
    ['grpc.example.com:443', 'grpc.example.com', 443],
  ])('accepts the address %s', (text, host, port) => {
    const read = readSettings({ GRPC_ADDRESS: text, HTTP_ADDRESS: text });
    expect(read.GRPC_ADDRESS).toEqual({ host, port, text });
    expect(read.HTTP_ADDRESS).toEqual({ host, port, text });
  });

  it.each([
    ':50051',
    'host',
    'host:',
    'host:99999',
    'host:65536',
    'host:-1',
    'host:http',
    '::1:50051',
    '[::1]',
    '[::1]50051',
    '[]:50051',
    '50051',
    'http://host:50051',
  ])('rejects the address %s', (text) => {
    const example = 'must be host:port, for example 127.0.0.1:50051 or [::1]:50051';
    expect(problems({ GRPC_ADDRESS: text, HTTP_ADDRESS: text })).toEqual([
      `GRPC_ADDRESS ${example}`,
      `HTTP_ADDRESS ${example}`,
    ]);
  });

  it.each([
    ['30s', 30_000],
    ['15m', 900_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
    ['forever', Number.POSITIVE_INFINITY],
  ])('accepts the retention %s', (text, ms) => {
    const read = readSettings({ WATCH_RETENTION: text, HISTORY_RETENTION: text });
    expect([read.WATCH_RETENTION, read.HISTORY_RETENTION]).toEqual([ms, ms]);
  });

  it.each(['0s', '30', '1.5h', '-1d', '7 d', '1w', 'Forever', '1000000d', '24h30m'])(
    'rejects the retention %s',
    (text) => {
      const sentence = 'must be a time such as 30s, 15m, 24h or 7d, or forever';
      expect(problems({ WATCH_RETENTION: text, HISTORY_RETENTION: text })).toEqual([
        `WATCH_RETENTION ${sentence}`,
        `HISTORY_RETENTION ${sentence}`,
      ]);
    },
  );

  it('rejects a HISTORY_RETENTION that is shorter than WATCH_RETENTION', () => {
    const sentence = 'HISTORY_RETENTION must be at least as long as WATCH_RETENTION';
    expect(problems({ HISTORY_RETENTION: '23h' })).toEqual([sentence]);
    expect(problems({ WATCH_RETENTION: 'forever', HISTORY_RETENTION: '7d' })).toEqual([sentence]);
    expect(problems({ HISTORY_RETENTION: '1d' })).toEqual([]);
    expect(problems({ WATCH_RETENTION: '1m', HISTORY_RETENTION: '60s' })).toEqual([]);
  });

  it('rejects a certificate without its key, the reverse, and a client CA without both', () => {
    const together = 'TLS_CERT_FILE and TLS_KEY_FILE must be set together';
    expect(problems({ TLS_CERT_FILE: 'a' })).toEqual([together]);
    expect(problems({ TLS_KEY_FILE: 'a', TLS_CLIENT_CA_FILE: 'c' })).toEqual([together]);
    expect(problems({ TLS_CLIENT_CA_FILE: 'c' })).toEqual([
      'TLS_CLIENT_CA_FILE requires TLS_CERT_FILE and TLS_KEY_FILE',
    ]);
    expect(problems({ TLS_CERT_FILE: 'a', TLS_KEY_FILE: 'b', TLS_CLIENT_CA_FILE: 'c' })).toEqual([]);
  });

  it('accepts "off" for HTTP_ADDRESS and rejects it for GRPC_ADDRESS', () => {
    expect(readSettings({ HTTP_ADDRESS: 'off' }).HTTP_ADDRESS).toBe('off');
    expect(problems({ GRPC_ADDRESS: 'off' })).toHaveLength(1);
  });

  it.each([
    'postgres://localhost',
    'postgresql://user:p%40ss@db.example.com:5432/agents?sslmode=require',
    'postgres:///agents?host=/var/run/postgresql',
    'postgres://[::1]:5432/agents',
  ])('accepts the database URL %s', (url) => {
    expect(readSettings({ DATABASE_URL: url, DATABASE_DIRECT_URL: url })).toMatchObject({
      DATABASE_URL: url,
      DATABASE_DIRECT_URL: url,
    });
  });

  it.each(['postgres://', 'mysql://u:hunter2@h/d', 'hunter2@db:5432', 'postgres://h:99999/hunter2'])(
    'rejects the database URL %s and does not repeat it in the message',
    (url) => {
      const [line, ...others] = problems({ DATABASE_URL: url });
      expect(line).toMatch(/^DATABASE_URL (must be postgres:|has a port that)/);
      expect(line).not.toContain('hunter2');
      expect(others).toEqual([]);
    },
  );

  it.each([
    ['DATABASE_POOL_SIZE', 1, 1000],
    ['DATABASE_WAIT_MS', 100, 60_000],
    ['POLL_INTERVAL_MS', 10, 60_000],
    ['SHUTDOWN_GRACE_MS', 0, 600_000],
  ] as const)('accepts for %s only whole numbers from %i to %i', (name, min, max) => {
    for (const value of [min, max]) expect(readSettings({ [name]: String(value) })[name]).toBe(value);
    for (const wrong of [String(min - 1), String(max + 1), `${min}.5`, '1e3', '0x10', '1 00', 'many', '9'.repeat(400)])
      expect(problems({ [name]: wrong }), wrong).toEqual([`${name} must be a whole number from ${min} to ${max}`]);
  });

  it.each([
    ['on', true],
    ['off', false],
  ])('accepts MIGRATE_ON_START=%s', (text, value) =>
    expect(readSettings({ MIGRATE_ON_START: text }).MIGRATE_ON_START).toBe(value),
  );

  it.each(['true', '1', 'ON', 'no'])('rejects MIGRATE_ON_START=%s', (text) =>
    expect(problems({ MIGRATE_ON_START: text })).toEqual(['MIGRATE_ON_START must be on or off']),
  );

  it('accepts for LOG_LEVEL only the levels of pino', () => {
    for (const level of ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'])
      expect(readSettings({ LOG_LEVEL: level }).LOG_LEVEL).toBe(level);
    expect(problems({ LOG_LEVEL: 'verbose' })).toEqual([
      'LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent',
    ]);
  });
});

describe('PROVIDER_ALLOW_CIDRS', () => {
  const allowed = (text: string) => readSettings({ PROVIDER_ALLOW_CIDRS: text }).PROVIDER_ALLOW_CIDRS;

  it.each(['127.0.0.0/8,fd00::/8', ' 127.0.0.0/8 , fd00::/8 ,', '127.0.0.0/8,,fd00::/8'])(
    'accepts %j as two ranges',
    (text) => {
      const list = allowed(text);
      expect([list.check('127.0.0.1'), list.check('fd00::1', 'ipv6')]).toEqual([true, true]);
      expect([list.check('10.0.0.1'), list.check('fc00::1', 'ipv6'), list.check('8.8.8.8')]).toEqual([
        false,
        false,
        false,
      ]);
    },
  );

  it.each(['localhost', '127.0.0.0/33', '127.0.0/8', 'fd00::/8;::1/128', '*', '127.0.0.0/8,nonsense', '::/0', '::/64'])(
    'rejects %s',
    (text) =>
      expect(problems({ PROVIDER_ALLOW_CIDRS: text })).toEqual([
        'PROVIDER_ALLOW_CIDRS must be address ranges such as 127.0.0.0/8,fd00::/8',
      ]),
  );

  it.each(['10.1.2.3', '10.1.2.3/', '::1'])(
    'does not allow all addresses when it is %s, an address without a prefix length',
    (text) => {
      if (problems({ PROVIDER_ALLOW_CIDRS: text }).length > 0) return;
      expect(allowed(text).check('169.254.169.254')).toBe(false);
      expect(allowed(text).check('fe80::1', 'ipv6')).toBe(false);
    },
  );
});

describe('isLoopback', () => {
  const address = (host: string): Address => ({ host, port: 1, text: `${host}:1` });

  it.each([
    ['localhost', true],
    ['127.0.0.1', true],
    ['127.8.9.10', true],
    ['::1', true],
    ['0:0:0:0:0:0:0:1', true],
    ['::ffff:127.0.0.1', true],
    ['0.0.0.0', false],
    ['::', false],
    ['128.0.0.1', false],
    ['192.168.0.1', false],
    ['::2', false],
    ['::ffff:10.0.0.1', false],
    ['localhost.example.com', false],
    ['127.0.0.1.example.com', false],
    ['example.com', false],
  ])('for %s returns %s', (host, loopback) => expect(isLoopback(address(host))).toBe(loopback));
});

describe('white space around a value', () => {
  it.each(['\r', '\n', '\r\n', ' ', '\t'])('is ignored in values in which it has no meaning: %j', (space) => {
    const plain = {
      GRPC_ADDRESS: '127.0.0.1:1',
      DATABASE_URL: 'postgres://u@h/d',
      DATABASE_POOL_SIZE: '5',
      LOG_LEVEL: 'warn',
      NOTIFY: 'off',
      ENCRYPTION_KEY: 'x',
      WATCH_RETENTION: '1h',
      OPENAI_API_KEY: 'sk-1',
      MIGRATE_ON_START: '',
    };
    const spaced = Object.fromEntries(Object.entries(plain).map(([name, value]) => [name, `${space}${value}${space}`]));
    expect(JSON.stringify(readSettings(spaced))).toBe(JSON.stringify(readSettings(plain)));
    expect(readSettings(spaced).providerKeys).toEqual(readSettings(plain).providerKeys);
  });

  it.each(['/data\r', '/data ', ' /data', '\r', ' '])('is rejected at the start and end of a path: %j', (path) => {
    const paths = Object.entries(settings).flatMap(([name, { isPath }]) => (isPath ? [name] : []));
    expect(paths).toContain('DATA_DIR');
    expect(problems(Object.fromEntries(paths.map((name) => [name, path])))).toEqual(
      paths.map((name) => expect.stringMatching(new RegExp(`^${name} begins or ends with white space`))),
    );
  });

  it('is kept within a path', () => expect(readSettings({ DATA_DIR: '/my data' }).DATA_DIR).toBe('/my data'));
});
