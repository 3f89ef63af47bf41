import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { describeError } from '../src/log.js';

const SECRET = 'sk-do-not-show-this';

/** An error as pg makes it and Knex rewrites it: SQL with its values in front, the server's words behind. */
function databaseError(fields: object = {}): Error {
  const error = new Error(`value "${SECRET}" is too long`);
  error.message = `insert into "agents" ("name") values ('${SECRET}') - ${error.message}`;
  const details = { detail: SECRET, hint: SECRET, where: SECRET, internalQuery: SECRET, parameters: [SECRET] };
  return Object.assign(error, details, fields);
}

describe('describeError', () => {
  it.each([
    ['from PostgreSQL', { severity: 'ERROR', code: '22001', table: 'agents', column: 'name', routine: 'varchar' }],
    ['with a routine only', { routine: 'varchar' }],
    ['that Knex alone has touched', {}],
  ])('keeps what is said by an error %s to itself', (_, fields) => {
    const described = describeError(databaseError(fields));
    expect(JSON.stringify(described)).not.toContain(SECRET);
    expect(described).toMatchObject({ type: 'Error', ...fields });
    expect(described).not.toHaveProperty('message');
  });

  it('keeps it to itself when it is the cause of another error', () => {
    const error = new Error('the write failed', { cause: new Error('in between', { cause: databaseError() }) });
    const described = describeError(error);
    expect(JSON.stringify(described)).not.toContain(SECRET);
    expect(described).toMatchObject({
      message: 'the write failed',
      cause: { message: 'in between', cause: { type: 'Error' } },
    });
  });

  it('says where it came from, without more', () => {
    const { stack } = describeError(databaseError()) as { stack: string[] };
    expect(stack.length).toBeGreaterThan(0);
    expect(stack.length).toBeLessThanOrEqual(12);
    for (const frame of stack) expect(frame).toMatch(/^at /);
    expect(stack[0]).toContain('databaseError');
  });

  it('says nothing of a message of several lines, even where one looks like a frame', () => {
    const error = Object.assign(new Error(`invalid input syntax: "a\n    at ${SECRET}\n"`), { severity: 'ERROR' });
    expect(JSON.stringify(describeError(error))).not.toContain(SECRET);
  });

  it('keeps the message of what is no database error', () => {
    const error = Object.assign(new TypeError('x is not a function'), { code: 'ERR_X', secret: SECRET });
    expect(describeError(error)).toMatchObject({ type: 'TypeError', code: 'ERR_X', message: 'x is not a function' });
    expect(JSON.stringify(describeError(error))).not.toContain(SECRET);
  });

  it.each([
    [SECRET, 'string'],
    [undefined, 'undefined'],
    [{ api_key: SECRET }, 'object'],
    [null, 'object'],
  ])('says only the type of what is no error', (thrown, type) => expect(describeError(thrown)).toEqual({ type }));
});

/** Runs a script in a process of its own with `log` at level debug; what it wrote to the two streams. */
function logged(script: string): { lines: Record<string, unknown>[]; stderr: string; stdout: string } {
  const code = `
    import { createLog } from ${JSON.stringify(new URL('../src/log.ts', import.meta.url).href)};
    const SECRET = ${JSON.stringify(SECRET)};
    const log = createLog('debug');
    ${script}`;
  const args = ['--import', 'tsx', '--input-type=module', '--eval', code];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  const lines = stderr
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  return { lines, stderr, stdout };
}

describe('createLog', () => {
  const NAMES = ['api_key', 'authorization', 'password', 'token', 'secret', 'ENCRYPTION_KEY', 'DATABASE_URL'];

  it('writes one JSON object a line, to standard error alone', () => {
    const { lines, stdout } = logged(`
      log.info({ note: 'two\\nlines' }, 'first');
      log.debug('second');
      log.trace('never');`);
    expect(stdout).toBe('');
    expect(lines).toMatchObject([
      { level: 30, msg: 'first', note: 'two\nlines' },
      { level: 20, msg: 'second' },
    ]);
    expect(lines[0]).toHaveProperty('pid');
    expect(lines[0]).not.toHaveProperty('hostname');
  });

  it('shows no secret that stands under its name, as deep as we log', () => {
    const { lines, stderr } = logged(`
      for (const name of ${JSON.stringify(NAMES)}) {
        log.info({ [name]: SECRET, shown: 1 });
        log.info({ request: { [name]: SECRET, shown: 1 } });
        log.info({ call: { request: { [name]: SECRET, shown: 1 } } });
        log.info({ requests: [{ [name]: SECRET }] });
        log.child({ [name]: SECRET }).info('from a child');
      }`);
    expect(lines).toHaveLength(NAMES.length * 5);
    expect(stderr).not.toContain(SECRET);
    expect(stderr.match(/\[redacted\]/g)).toHaveLength(NAMES.length * 5);
    expect(stderr.match(/"shown":1/g)).toHaveLength(NAMES.length * 3);
  });

  it('describes errors as describeError does, and says nothing more of them', () => {
    const { lines, stderr } = logged(`
      const error = Object.assign(new Error("insert into x values ('" + SECRET + "') - failed"), { code: '22001', severity: 'ERROR', detail: SECRET });
      log.error({ err: error }, 'a write failed');
      log.error({ err: new Error('outer', { cause: error }) }, 'another failed');`);
    expect(stderr).not.toContain(SECRET);
    expect(lines).toMatchObject([
      { level: 50, msg: 'a write failed', err: { type: 'Error', code: '22001', severity: 'ERROR' } },
      { level: 50, msg: 'another failed', err: { message: 'outer', cause: { code: '22001' } } },
    ]);
  });

  it('says nothing more of them when a line has no message of its own', () => {
    const { lines, stderr } = logged(`
      const error = Object.assign(new Error("insert into x values ('" + SECRET + "') - failed"), { severity: 'ERROR' });
      log.error({ err: error });
      log.error(error);`);
    expect(lines).toHaveLength(2);
    expect(stderr).not.toContain(SECRET);
  });
});
