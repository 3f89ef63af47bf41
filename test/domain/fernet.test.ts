import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FernetKey, generateKey } from '../../src/domain/fernet.js';
import { Keyring } from '../../src/domain/keyring.js';

const parse = (text: string) => {
  const key = FernetKey.parse(text);
  if (!key) throw new Error('no key');
  return key;
};

// The published vectors of the Fernet specification: generate.json, verify.json and invalid.json.
const SPEC_KEY = 'cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=';
const SPEC_TOKEN =
  'gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==';
const INVALID = {
  'incorrect mac':
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykQUFBQUFBQUFBQQ==',
  'too short': 'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPA==',
  'invalid base64':
    '%%%%%%%%%%%%%AECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==',
  'payload size not multiple of block size':
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPOm73QeoCk9uGib28Xe5vz6oxq5nmxbx_v7mrfyudzUm',
  'payload padding error':
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0ODz4LEpdELGQAad7aNEHbf-JkLPIpuiYRLQ3RtXatOYREu2FWke6CnJNYIbkuKNqOhw==',
};

describe('Fernet', () => {
  it('produces the token of the specification', () => {
    const iv = Uint8Array.from({ length: 16 }, (_, at) => at);
    const token = parse(SPEC_KEY).encrypt(Buffer.from('hello'), new Date(499162800 * 1000), iv);
    expect(token).toBe(SPEC_TOKEN);
    expect(parse(SPEC_KEY).decrypt(SPEC_TOKEN)?.toString()).toBe('hello');
  });

  it.each(Object.entries(INVALID))('rejects a token with %s', (_, token) => {
    expect(parse(SPEC_KEY).decrypt(token)).toBeUndefined();
  });

  it('decrypts its own tokens and rejects tokens that were modified or encrypted with another key', () => {
    const key = parse(generateKey());
    const other = parse(generateKey());
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 303 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (plain, at, by) => {
        const token = key.encrypt(plain, new Date());
        expect(token.length).toBeLessThanOrEqual(500);
        expect(key.decrypt(token)).toEqual(Buffer.from(plain));
        expect(other.decrypt(token)).toBeUndefined();
        const bytes = Buffer.from(token, 'base64url');
        bytes[at % bytes.length] = (bytes[at % bytes.length] as number) ^ by;
        expect(key.decrypt(bytes.toString('base64url'))).toBeUndefined();
      }),
    );
  });

  it.each(['', 'short', `${'A'.repeat(43)}==`, 'A'.repeat(44), `${'A'.repeat(42)}!=`, ' '.repeat(44)])(
    'rejects %j as a key',
    (text) => expect(FernetKey.parse(text)).toBeUndefined(),
  );

  it('parses keys in both base64 alphabets and gives them an id that does not reveal them', () => {
    const url = Buffer.alloc(32, 0xfb).toString('base64url');
    const standard = Buffer.alloc(32, 0xfb).toString('base64');
    expect(parse(url).id).toBe(parse(standard).id);
    expect(parse(url).id).toMatch(/^[0-9a-f]{12}$/);
    expect(JSON.stringify(parse(url))).not.toContain('fb');
  });
});

const python = (() => {
  try {
    execFileSync('python3', ['-c', 'import cryptography'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

describe.runIf(python)('Fernet in Python (cryptography)', () => {
  const run = (code: string, ...args: string[]) =>
    execFileSync('python3', ['-c', `import sys\nfrom cryptography.fernet import Fernet\n${code}`, ...args])
      .toString()
      .trim();

  it('decrypts tokens of this package, and this package decrypts its tokens', () => {
    const key = generateKey();
    const fromTypeScript = parse(key).encrypt(Buffer.from('sk-ours'), new Date());
    expect(run('print(Fernet(sys.argv[1]).decrypt(sys.argv[2].encode()).decode())', key, fromTypeScript)).toBe(
      'sk-ours',
    );
    const fromPython = run('print(Fernet(sys.argv[1]).encrypt(b"sk-theirs").decode())', key);
    expect(parse(key).decrypt(fromPython)?.toString()).toBe('sk-theirs');
    const pythonKey = run('print(Fernet.generate_key().decode())');
    expect(FernetKey.parse(pythonKey)).toBeDefined();
  });
});

describe('a keyring', () => {
  const [first, second] = [generateKey(), generateKey()];
  const binding = { kind: 'config', agentId: 1, id: 2, provider: 'openai', origin: 'https://api.openai.com' } as const;
  const now = new Date();

  it('encrypts with the first key and decrypts with every key', () => {
    const old = Keyring.parse(second).seal('sk-old', binding, now);
    const both = Keyring.parse(`${first}, ${second}`);
    expect(both.open(old, binding)).toEqual({ key: 'sk-old', keyId: both.ids[1] });
    expect(Keyring.parse(first).open(both.seal('sk-new', binding, now), binding)).toMatchObject({ key: 'sk-new' });
    expect(Keyring.parse(first).open(old, binding)).toEqual({ unreadable: 'no key decrypts it' });
  });

  it.each([
    { agentId: 9 },
    { id: 9 },
    { provider: 'claude' },
    { origin: 'https://elsewhere.example' },
    { kind: 'credential' as const },
  ])('rejects ciphertext that was copied to a row with %j', (change) => {
    const keyring = Keyring.parse(first);
    const token = keyring.seal('sk-own', binding, now);
    expect(keyring.open(token, { ...binding, ...change })).toEqual({
      unreadable: 'it belongs to another row or provider',
    });
  });

  it('produces ciphertext of at most 500 characters for an API key of at most 286', () => {
    expect(Keyring.parse(first).seal('k'.repeat(286), binding, now).length).toBeLessThanOrEqual(500);
    expect(Keyring.parse(first).seal('k'.repeat(287), binding, now).length).toBeGreaterThan(500);
  });

  it('decrypts unbound ciphertext of both encodings and rejects it as bound ciphertext', () => {
    const keyring = Keyring.parse(first);
    const token = parse(first).encrypt(Buffer.from('sk-python'), now);
    expect(keyring.openUnbound(token)).toMatchObject({ key: 'sk-python' });
    expect(keyring.openUnbound(Buffer.from(token).toString('base64'))).toMatchObject({ key: 'sk-python' });
    expect(keyring.openUnbound(Buffer.from(token).toString('base64url'))).toMatchObject({ key: 'sk-python' });
    expect(keyring.open(token, binding)).toHaveProperty('unreadable');
    expect(keyring.openUnbound('test-api-key')).toEqual({ unreadable: 'no key decrypts it' });
  });

  it('does not include a malformed key in the error', () => {
    expect(() => Keyring.parse(`${first},hunter2`)).toThrow(/^key 2 is not 32 bytes in base64$/);
  });
});
