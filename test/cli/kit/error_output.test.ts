import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../../../src/package.js';
import { startFake } from '../../client/support.js';
import { runCommand } from '../../support/run_command.js';
import { useCli, useDirectory } from '../support.js';

const cli = useCli();
const directory = useDirectory();

describe('an error response of the service', () => {
  it('is printed with every violation under the option that caused it', async () => {
    const { code, stdout, stderr } = await cli([
      'configs',
      'create',
      'trader',
      '--model',
      'opnai/x',
      '--temperature',
      '5',
      '--stop',
      'a',
      '--stop',
      '',
    ]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr.split('\n').slice(0, 2)).toEqual([
      'agentllm: the request has 3 problems',
      '  --temperature 5  must be a number between 0 and 2, not 5',
    ]);
    expect(stderr).toMatch(/\n {2}--model opnai\/x {2}Invalid provider "opnai": did you mean "openai"\? /);
    expect(stderr).toMatch(/\n {2}--stop {11}must not be empty\n/);
  });

  it('names a required option that is missing', async () => {
    const { code, stderr } = await cli(['configs', 'create', 'trader']);
    expect([code, stderr]).toEqual([2, 'agentllm: the request has a problem\n  --model  is required\n']);
  });

  it('is printed as JSON on standard error with --json', async () => {
    const { code, stdout, stderr } = await cli([
      'configs',
      'create',
      'trader',
      '--model',
      'openai/gpt-4o',
      '--temperature',
      '5',
      '--json',
    ]);
    expect([code, stdout]).toEqual([2, '']);
    expect(JSON.parse(stderr)).toEqual({
      error: {
        code: 'INVALID_ARGUMENT',
        reason: 'INVALID_FIELDS',
        message: 'config.temperature: must be a number between 0 and 2, not 5',
        violations: [
          {
            field: 'config.temperature',
            description: 'must be a number between 0 and 2, not 5',
            argument: '--temperature 5',
          },
        ],
        metadata: {},
      },
    });
    const missing = await cli(['agents', 'get', 'tradr', '--json']);
    expect([missing.code, JSON.parse(missing.stderr).error]).toEqual([
      3,
      expect.objectContaining({
        code: 'NOT_FOUND',
        reason: 'AGENT_NOT_FOUND',
        metadata: { agent: 'name "tradr"', suggestion: 'trader' },
      }),
    ]);
  });

  it('is printed on standard error with the next command', async () => {
    const { code, stdout, stderr } = await cli(['agents', 'get', 'tradr']);
    expect([code, stdout, stderr]).toEqual([
      3,
      '',
      'agentllm: No agent has the name "tradr"; did you mean "trader"?\n(agentllm agents list shows the agents)\n',
    ]);
  });
});

describe('an invalid command line', () => {
  it.each([
    [['configs', 'list', '--agnet', 'x'], "agentllm: unknown option '--agnet' (did you mean --agent?)"],
    [['configs', 'lst'], "agentllm: unknown command 'lst' (did you mean list?)"],
    [['confgs', 'list'], "agentllm: unknown command 'confgs' (did you mean configs?)"],
    [['configs', 'get'], "agentllm: missing required argument 'id'"],
    [['configs', 'get', '1', '2'], "agentllm: too many arguments for 'get'. Expected 1 argument but got 2"],
    [['configs', 'get', 'one'], 'agentllm: the command line has a problem'],
    [['configs', 'update', '8', '--temperature'], "agentllm: option '--temperature <number>' argument missing"],
    [['agents', 'update', 'trader', '--substitution', 'some'], 'agentllm: the command line has a problem'],
  ])('%j is rejected: %s', async (args, firstLine) => {
    const { code, stdout, stderr } = await cli(args);
    expect([code, stdout, stderr.split('\n')[0]?.replace(/\.$/, '')]).toEqual([2, '', firstLine]);
    expect(stderr).toMatch(/\(agentllm .*--help shows the options\)\n$/);
    const json = await cli(args.toSpliced(2, 0, '--json'));
    expect([json.code, JSON.parse(json.stderr).error.reason]).toEqual([2, 'USAGE']);
  });

  it('prints the help on standard error when the command is missing', async () => {
    const { code, stdout, stderr } = await cli(['configs']);
    expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(/^Usage: agentllm configs/)]);
  });

  it.each([
    ['migrate', 'status', '--bogus'],
    ['serve', '--bogus'],
    ['doctor', '--bogus'],
    ['key', 'generate', '--bogus'],
    ['backup'],
  ])('is rejected with the same message by commands that call no service: %s %s', async (...args) => {
    const { code, stdout, stderr } = await cli(args);
    const command = `agentllm ${args.filter((word) => word !== '--bogus').join(' ')}`;
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^agentllm: .*\n\(.* --help shows the options\)\n$/);
    expect(stderr).toContain(`(${command} --help`);
  });

  it('is rejected when help is requested for an unknown command', async () => {
    for (const names of [['bogus'], ['configs', 'crate']]) {
      const { code, stderr } = await cli(['help', ...names]);
      expect([code, stderr]).toEqual([2, expect.stringContaining(`unknown command ${names.join(' ')}\n`)]);
    }
    expect(await cli(['help', 'configs', 'create'])).toEqual(await cli(['configs', 'create', '--help']));
  });

  it('is rejected when options precede the command', async () => {
    const { code, stderr } = await cli(['--address', '127.0.0.1:1', 'agents', 'list']);
    expect([code, stderr]).toEqual([2, expect.stringContaining('(options follow the command)')]);
  });

  it.each(['18451', ':18451', '127.0.0.1:18451/', 'host:99999', 'http://127.0.0.1:8081'])(
    'is rejected when --address is not host:port: %s',
    async (address) => {
      const { code, stderr } = await cli(['agents', 'list', '--address', address]);
      const problem = `--address ${address}  is no host:port, such as 127.0.0.1:50051`;
      expect([code, stderr]).toEqual([2, expect.stringContaining(problem)]);
    },
  );

  it('names an argument when it is empty', async () => {
    expect((await cli(['agents', 'get', ''])).stderr).toMatch(/\n {2}<agent> {2}/);
  });
});

describe('a command that cannot reach the service', () => {
  it('names the address, its source and the command that starts a service', async () => {
    const flag = await cli(['agents', 'list', '--address', '127.0.0.1:1']);
    expect(flag.code).toBe(4);
    expect(flag.stderr).toMatch(
      /^agentllm: no service is reachable at 127\.0\.0\.1:1 \(from --address\)\n.*ECONNREFUSED.*\n {2}agentllm serve starts a service/,
    );
    const env = await runCommand(['agents', 'list'], { AGENTLLM_ADDRESS: '127.0.0.1:2' });
    expect([env.code, env.stderr]).toEqual([4, expect.stringContaining('127.0.0.1:2 (from AGENTLLM_ADDRESS)')]);
    const json = await cli(['agents', 'list', '--address', '127.0.0.1:1', '--json']);
    expect([json.code, json.stdout, JSON.parse(json.stderr).error.code]).toEqual([4, '', 'UNAVAILABLE']);
  });

  it('does not report an unknown outcome when the connection was refused', async () => {
    const write = ['agents', 'create', 'x', '--type', 'y', '--address', '127.0.0.1:1', '--timeout', '300'];
    const { code, stderr } = await cli(write);
    expect([code, stderr]).toEqual([4, expect.stringContaining('last failure: connect ECONNREFUSED 127.0.0.1:1')]);
    expect(stderr).not.toContain('may have been done');
  });

  it('uses port 443 when the address has no port', async () => {
    const { stderr } = await cli(['agents', 'list', '--address', '127.0.0.1', '--timeout', '300']);
    expect(stderr).toContain('127.0.0.1 (from --address, no port given: 443)');
  });

  it('prints the request id for a retry when the outcome of the write is unknown', async () => {
    const { address } = await startFake(() => {});
    const write = ['agents', 'create', 'x', '--type', 'y', '--address', address, '--timeout', '1500'];
    const { code, stderr } = await cli(write);
    expect([code, stderr]).toEqual([
      4,
      expect.stringMatching(/with --request-id [0-9a-f-]{36} is applied at most once\)\n$/),
    ]);
  });

  it('fails after --timeout when the service does not respond', async () => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const address = `127.0.0.1:${(silent.address() as { port: number }).port}`;
    const { code, stderr } = await cli(['agents', 'list', '--address', address, '--timeout', '400']);
    silent.close();
    expect([code, stderr]).toEqual([
      4,
      expect.stringContaining(`${address} (from --address) did not respond within 400 ms`),
    ]);
    expect((await cli(['agents', 'list', '--timeout', '0'])).code).toBe(2);
  });

  it('sends no token in plaintext and rejects incomplete certificate files', async () => {
    const token = { AGENTLLM_TOKEN: 'secret-token' };
    const plaintext = await cli(['agents', 'list', '--address', 'example.com:50051'], { env: token });
    expect([plaintext.code, plaintext.stderr]).toEqual([
      2,
      expect.stringContaining('The token would be sent to example.com:50051 in plaintext: add --tls'),
    ]);
    expect(plaintext.stderr).not.toContain('secret-token');
    const file = join(directory(), 'token');
    await writeFile(file, 'secret-token\n');
    // The token was read and sent: the service reports that it did not issue it.
    const sent = await cli(['agents', 'list', '--token-file', file]);
    expect([sent.code, sent.stderr]).toEqual([1, expect.stringContaining('not issued by this service')]);
    expect(sent.stderr).not.toContain('secret-token');
    expect((await cli(['agents', 'list', '--cert', file])).stderr).toContain('contains no PEM certificate');
    expect((await cli(['agents', 'list', '--ca', join(directory(), 'none')])).stderr).toContain('does not exist');
    expect((await cli(['agents', 'list', '--tls', '--timeout', '3000'])).code).toBe(4);
  });
});

describe('standard output', () => {
  it('can be closed by the reader before the output is complete', async () => {
    for (let at = 0; at < 12; at++)
      await cli
        .service()
        .agents.createAgent({ agent: { name: `long_${at}`, agent_type: 'long', prompt_template: 'x'.repeat(60_000) } });
    const program = `${process.execPath} ${packageFile('dist/src/cli/agentllm.js')}`;
    const env = { ...process.env, AGENTLLM_ADDRESS: `127.0.0.1:${cli.service().port}` };
    const script = `${program} agents list --json | head -c 10 >/dev/null; echo "ended with \${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await promisify(execFile)('bash', ['--norc', '-c', script], { env });
    expect([stdout, stderr]).toEqual(['ended with 0\n', '']);
  });

  it('contains only the response with --json', async () => {
    const { stdout, stderr } = await cli(['configs', 'list', '--json']);
    expect(stderr).toBe('');
    expect(Object.keys(JSON.parse(stdout))).toEqual(['configs', 'revision']);
  });
});
