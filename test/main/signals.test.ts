import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { startCommand, useDirectories } from '../support/command.js';
import { isListening, PROGRAM, place, startGroup, until } from './support.js';

/* How the service stops: the signals, and the programs that may stand between them and the service. */

const directory = useDirectories();

describe('a service that was started by npm', () => {
  it('ends with `npm start` on SIGTERM, and frees its port', async () => {
    const { port, env } = await place(await directory.started());
    // Without the build, which other tests would meet half done.
    const npm = startGroup('npm', ['start', '--ignore-scripts'], {
      cwd: packageFile('.'),
      env: { ...env, npm_config_ignore_scripts: 'true' },
    });
    const ended = once(npm, 'exit');
    await until(port, true);
    npm.kill('SIGTERM');
    await until(port, false);
    await ended;
  });

  it('ends with an npm whose shell does not pass signals on', async () => {
    const project = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
    try {
      const scripts = { start: `${process.execPath} ${PROGRAM} serve; echo ended` };
      await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'of-a-user', version: '1.0.0', scripts }));
      const { port, env } = await place(await directory.started());
      const npm = startGroup('npm', ['start'], { cwd: project, env });
      await until(port, true);
      npm.kill('SIGTERM');
      await until(port, false);
    } finally {
      await rm(project, { recursive: true, force: true });
    }
  });

  it('ends with an npm that was killed', async () => {
    const { port, env } = await place(await directory.started());
    const shell = startGroup('sh', ['-c', `${process.execPath} ${PROGRAM} serve; echo ended`], {
      env: { ...env, npm_lifecycle_event: 'start' },
    });
    await until(port, true);
    shell.kill('SIGKILL');
    await until(port, false);
  });

  it('goes on without its parent where that was no npm', async () => {
    const { port, env } = await place(await directory.started());
    const shell = startGroup('sh', ['-c', `${process.execPath} ${PROGRAM} serve & echo started`], { env });
    await once(shell, 'exit');
    await until(port, true);
    expect(await isListening(port)).toBe(true);
  });
});

describe('a signal', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s stops the service cleanly', async (signal) => {
    const running = await startCommand({ DATA_DIR: await directory.started() });
    running.child.kill(signal);
    const { code, stderr } = await running.ended;
    expect(code).toBe(0);
    expect(stderr).toContain(`agentllm is stopping (${signal})`);
    expect(stderr).toContain('agentllm has stopped');
  });

  it('reaches a service that is process 1', async () => {
    const { port, env } = await place(await directory.started());
    // A PID namespace of its own, as a container has one; where that is not allowed there is nothing to test.
    const args = ['--pid', '--fork', process.execPath, PROGRAM, 'serve'];
    const namespace = startGroup('unshare', args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    namespace.stderr?.on('data', (chunk) => {
      said += chunk;
    });
    const ended = once(namespace, 'exit');
    await Promise.race([until(port, true), ended]);
    if (/unshare.*(not permitted|failed)/.test(said)) return;
    expect(said).toContain('"pid":1,');
    const { pid } = namespace;
    const [child] = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).split(' ');
    process.kill(Number(child), 'SIGTERM');
    expect((await ended)[0]).toBe(0);
    await until(port, false);
    expect(said).toContain('agentllm has stopped');
  });
});
