import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { describeError } from '../src/log.js';

const SECRET = 'sk-do-not-show-this';

/** An error of pg as Knex rewrites it: the SQL with its values, followed by the message of the server. */
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
    ['with a message of Knex only', {}],
  ])('omits the message and the details of a database error %s', (_, fields) => {
    const described = describeError(databaseError(fields));
    expect(JSON.stringify(described)).not.toContain(SECRET);
    expect(described).toMatchObject({ type: 'Error', ...fields });
    expect(described).not.toHaveProperty('message');
  });

  it('omits the message of a database error that is the cause of another error', () => {
    const error = new Error('the write failed', { cause: new Error('in between', { cause: databaseError() }) });
    const described = describeError(error);
    expect(JSON.stringify(described)).not.toContain(SECRET);
    expect(described).toMatchObject({
      message: 'the write failed',
      cause: { message: 'in between', cause: { type: 'Error' } },
    });
  });

  it('includes at most 12 stack frames without the message', () => {
    const { stack } = describeError(databaseError()) as { stack: string[] };
    expect(stack.length).toBeGreaterThan(0);
    expect(stack.length).toBeLessThanOrEqual(12);
    for (const frame of stack) expect(frame).toMatch(/^at /);
    expect(stack[0]).toContain('databaseError');
  });

  it('omits a message of several lines, even when one of them looks like a stack frame', () => {
    const error = Object.assign(new Error(`invalid input syntax: "a\n    at ${SECRET}\n"`), { severity: 'ERROR' });
    expect(JSON.stringify(describeError(error))).not.toContain(SECRET);
  });

  it('includes the message of an error that is not a database error', () => {
    const error = Object.assign(new TypeError('x is not a function'), { code: 'ERR_X', secret: SECRET });
    expect(describeError(error)).toMatchObject({ type: 'TypeError', code: 'ERR_X', message: 'x is not a function' });
    expect(JSON.stringify(describeError(error))).not.toContain(SECRET);
  });

  it.each([
    [SECRET, 'string'],
    [undefined, 'undefined'],
    [{ api_key: SECRET }, 'object'],
    [null, 'object'],
  ])('includes only the type of a thrown value that is not an error', (thrown, type) =>
    expect(describeError(thrown)).toEqual({ type }),
  );
});

/** Runs a script in a separate process with `log` at level debug. Returns what it wrote to stdout and stderr. */
function runWithLog(script: string): { lines: Record<string, unknown>[]; stderr: string; stdout: string } {
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
  const SECRET_NAMES = ['api_key', 'authorization', 'password', 'token', 'secret', 'ENCRYPTION_KEY', 'DATABASE_URL'];

  it('writes one JSON object per line, only to standard error', () => {
    const { lines, stdout } = runWithLog(`
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

  it('redacts a secret under a known name at each nesting level that the service logs', () => {
    const { lines, stderr } = runWithLog(`
      for (const name of ${JSON.stringify(SECRET_NAMES)}) {
        log.info({ [name]: SECRET, shown: 1 });
        log.info({ request: { [name]: SECRET, shown: 1 } });
        log.info({ call: { request: { [name]: SECRET, shown: 1 } } });
        log.info({ requests: [{ [name]: SECRET }] });
        log.child({ [name]: SECRET }).info('from a child');
      }`);
    expect(lines).toHaveLength(SECRET_NAMES.length * 5);
    expect(stderr).not.toContain(SECRET);
    expect(stderr.match(/\[redacted\]/g)).toHaveLength(SECRET_NAMES.length * 5);
    expect(stderr.match(/"shown":1/g)).toHaveLength(SECRET_NAMES.length * 3);
  });

  it('logs an error only as describeError describes it', () => {
    const { lines, stderr } = runWithLog(`
      const error = Object.assign(new Error("insert into x values ('" + SECRET + "') - failed"), { code: '22001', severity: 'ERROR', detail: SECRET });
      log.error({ err: error }, 'a write failed');
      log.error({ err: new Error('outer', { cause: error }) }, 'another failed');`);
    expect(stderr).not.toContain(SECRET);
    expect(lines).toMatchObject([
      { level: 50, msg: 'a write failed', err: { type: 'Error', code: '22001', severity: 'ERROR' } },
      { level: 50, msg: 'another failed', err: { message: 'outer', cause: { code: '22001' } } },
    ]);
  });

  it('omits the message of an error when the log line has no message', () => {
    const { lines, stderr } = runWithLog(`
      const error = Object.assign(new Error("insert into x values ('" + SECRET + "') - failed"), { severity: 'ERROR' });
      log.error({ err: error });
      log.error(error);`);
    expect(lines).toHaveLength(2);
    expect(stderr).not.toContain(SECRET);
  });
});
